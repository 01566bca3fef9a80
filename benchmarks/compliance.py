"""`llm-comply` on a real llama.cpp server, directly and through the gateway: `python -m benchmarks.compliance`.

Needs requirements-node.txt and requirements-demo.txt, and PyPI for llm-comply itself, which is installed beside,
into the system's temporary directory. Prints a line per test, and below it what is wrong through the gateway alone.
Ends with 1 where a test passes directly and not through the gateway. The model is too small to say the same thing
twice: what seems lost is tried again before it counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from scripts.llama_node import MODEL_ID
from tests.support.product import ROOT, Product, free_port, wait_until

REQUIREMENT: Final = "llm-comply==0.5.0"
FORMATS: Final[dict[str, tuple[str, ...]]] = {
    "openai-chat": (),
    "open-responses": (),
    "anthropic": ("-H", "anthropic-version:2023-06-01"),
}
ANSWER_SECONDS: Final = 60
RUN_SECONDS: Final = 900
NODE_SECONDS: Final = 60
TRIES: Final = 3


@dataclass(frozen=True)
class Verdict:
    """What became of one test: `passed`, `failed` or `skipped`, and why."""

    status: str
    errors: tuple[str, ...] = ()


MISSING: Final = Verdict("missing")
Verdicts = dict[str, Verdict]


@dataclass(frozen=True)
class Target:
    """An API under test; `url` without the version."""

    url: str
    key: str


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="llmlb-comply-") as temporary:
        tool = install(Path(temporary) / "venv")
        with running(Path(temporary) / "data") as (direct, gateway):
            lost = [name for format in FORMATS for name in compare(tool, format, direct, gateway)]
    print(f"\nlost on the way: {', '.join(lost) or 'nothing'}")
    return 1 if lost else 0


def install(place: Path) -> Path:
    """The tool, in a virtual environment of its own: it wants other versions than the product."""
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", REQUIREMENT], check=True)
    return place / "bin" / "llm-comply"


@contextlib.contextmanager
def running(data_dir: Path) -> Iterator[tuple[Target, Target]]:
    """The node, and the product before it."""
    port = free_port()
    node = subprocess.Popen([sys.executable, str(ROOT / "scripts" / "llama_node.py"), "--port", str(port)], cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: node.poll() is not None or serves(url), seconds=NODE_SECONDS, what="the node answers")
        if node.poll() is not None:
            sys.exit("the node did not start")
        with Product(data_dir) as product:
            product.add_node("llama", url)
            wait_until(lambda: serves(product.url, product.key), seconds=NODE_SECONDS, what="the gateway has the model")
            yield Target(url, "none"), Target(product.url, product.key)
    finally:
        node.terminate()
        node.wait(10)


def serves(url: str, key: str = "none") -> bool:
    headers = {"Authorization": f"Bearer {key}"}
    try:
        answer = httpx.get(f"{url}/v1/models", headers=headers, timeout=2, trust_env=False)
        return answer.status_code == 200 and any(model["id"] == MODEL_ID for model in answer.json()["data"])
    except httpx.HTTPError:
        return False


def compare(tool: Path, format: str, direct: Target, gateway: Target) -> list[str]:
    """Print the verdicts of both. Returns: the tests that pass directly alone."""
    known, found = verdicts(tool, format, direct), verdicts(tool, format, gateway)
    for _ in range(TRIES - 1):
        if again := losses(known, found):
            found |= verdicts(tool, format, gateway, again)
    print(f"\n{format:<36}directly  gateway")
    for name, verdict in known.items():
        ours = found.get(name, MISSING)
        print(f"  {name:<34}{verdict.status:<10}{ours.status}", flush=True)
        for error in more(verdict.errors, ours.errors):
            print(f"    through the gateway alone: {error}")
    return [f"{format}/{name}" for name in losses(known, found)]


def more(known: Iterable[str], found: Iterable[str]) -> list[str]:
    """What is wrong in the second alone. What follows the colon is what the model happened to say."""
    return sorted({error.partition(": ")[0] for error in found} - {error.partition(": ")[0] for error in known})


def losses(known: Verdicts, found: Verdicts) -> list[str]:
    passed = {name for name, verdict in found.items() if verdict.status == "passed"}
    return [name for name, verdict in known.items() if verdict.status == "passed" and name not in passed]


def verdicts(tool: Path, format: str, target: Target, only: Iterable[str] = ()) -> Verdicts:
    """One for each test, by its id."""
    command = [str(tool), "--json", "--timeout", str(ANSWER_SECONDS), "--format", format, *FORMATS[format]]
    command += ["-u", f"{target.url}/v1", "-m", MODEL_ID]
    if names := ",".join(only):
        command += ["-f", names]
    done = subprocess.run(
        command,
        env={**os.environ, "OPENRESPONSES_API_KEY": target.key, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    if not done.stdout.strip():
        sys.exit(f"llm-comply failed: {done.stderr}")
    results = json.loads(done.stdout)["results"]
    return {result["id"]: Verdict(result["status"], tuple(result.get("errors", ()))) for result in results}


if __name__ == "__main__":
    sys.exit(main())
