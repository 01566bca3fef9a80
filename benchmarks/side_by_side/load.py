"""Load on one gateway: closed-loop requests by wrk, which costs far less CPU than any of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# A reply may wait behind a thousand others in a gateway that is slow.
ANSWER_SECONDS: Final = 30
SCRIPT: Final = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_KEY")
local file = io.open(os.getenv("BENCH_BODY"), "rb")
wrk.body = file:read("*a")
file:close()
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nFIGURES {"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "max_ms": %.4f, ' ..
    '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, e.connect, e.read, e.write, e.status, e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Answered:
    """What wrk saw. Its percentiles are corrected for coordinated omission: one stall shows in p99."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int


class LoadError(Exception):
    """The load generator itself failed, in plain words."""


def available() -> bool:
    return shutil.which("wrk") is not None


def requests(url: str, key: str, body: Path, script: Path, *, connections: int, seconds: int) -> Answered:
    """Each connection asks again as soon as it was answered. Raises LoadError."""
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        f"--timeout={ANSWER_SECONDS}s",
        "-s",
        str(script),
        url,
    ]
    try:
        done = subprocess.run(
            command,
            env={"BENCH_KEY": key, "BENCH_BODY": str(body), "PATH": "/usr/local/bin:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=seconds + ANSWER_SECONDS + 10,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError("wrk did not end") from error
    return parse(done.stdout, done.stderr)


def parse(output: str, complaint: str = "") -> Answered:
    """The line that the script above prints. Raises LoadError where there is none."""
    line = next((line for line in output.splitlines() if line.startswith("FIGURES ")), None)
    if line is None:
        raise LoadError(f"wrk gave no figures: {' '.join((complaint or output).split())[-200:]}")
    figures = json.loads(line.removeprefix("FIGURES "))
    failed = sum(figures.pop(name) for name in ("connect", "read", "write", "status", "timeout"))
    return Answered(**figures, errors=failed)
