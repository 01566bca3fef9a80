"""The official JavaScript SDKs, unchanged but for their base URL: they notice nothing. What they do is in js/*.mjs."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from access.permissions import Permission
from nodes.fake import messages, responses
from nodes.fake_node import Behaviour
from tests.routing.conftest import Fleet

HERE: Final = Path(__file__).parent / "js"
INSTALL_SECONDS: Final = 60
RUN_SECONDS: Final = 60
MANIFEST: Final = ("package.json", "package-lock.json")
OUR_FAULT: Final = ("EUSAGE", "EINTEGRITY", "EJSONPARSE", "ERESOLVE")
_CODE: Final = re.compile(r"^npm (?:error|ERR!) code (\w+)", re.MULTILINE)
CALLS: Final = [
    {"id": id, "type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": city})}}
    for id, city in (("call_1", "Tokyo"), ("call_2", "東京"))
]
# What each model does, by its name.
CAST: Final[dict[str, Behaviour]] = {
    "talker": Behaviour(),
    "caller": Behaviour(says={"role": "assistant", "content": "Let me look.", "tool_calls": CALLS}),
    "clerk": Behaviour(says={"role": "assistant", "content": '{"name": "東京", "people": 14000000}'}),
    "thinker": Behaviour(says={"reasoning_content": "They want the weather.", "content": "Sunny."}),
    "busy": Behaviour(status=429),
    "broken": Behaviour(status=500),
    "breaks-off": Behaviour(mode="cut_mid_stream"),
}


def run(*command: str, at: Path, seconds: float, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=at,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def install(place: Path) -> None:
    """As the lock file says, once for all workers. Skips where that cannot be had."""
    lock = (HERE / "package-lock.json").read_text()
    done = place / "installed"
    with (place / "lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if done.exists() and done.read_text() == lock:
            return
        for name in MANIFEST:
            shutil.copy(HERE / name, place)
        fetch(place)
        done.write_text(lock)


def fetch(place: Path) -> None:
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-retry-mintimeout=1000")
    try:
        result = run("npm", "ci", *options, at=place, seconds=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the npm registry did not deliver the SDKs within {INSTALL_SECONDS} s")
    if result.returncode == 0:
        return
    code = _CODE.search(result.stderr)
    assert code is not None, result.stderr
    assert code[1] not in OUR_FAULT, result.stderr
    pytest.skip(f"the npm registry does not deliver the SDKs: {code[1]}")


@pytest.fixture(scope="session")
def sdks(request: pytest.FixtureRequest) -> Path:
    """Where the SDKs are installed, in pytest's cache, beside the scripts."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js with npm is not installed")
    assert request.config.cache is not None
    place = request.config.cache.mkdir("javascript-sdks")
    install(place)
    for script in HERE.glob("*.mjs"):
        shutil.copy(script, place)
    return place


async def passes(fleet: Fleet, sdks: Path, script: str) -> None:
    """In a thread: the gateway answers on this loop meanwhile."""
    reader = await fleet.mint("reader", Permission.MODELS_READ)
    environment = {"GATEWAY_URL": fleet.url, "GATEWAY_KEY": fleet.key, "READER_KEY": reader}
    result = await asyncio.to_thread(run, "node", script, at=sdks, seconds=RUN_SECONDS, **environment)
    assert result.returncode == 0, result.stdout + result.stderr


async def cast(fleet: Fleet, **values: Any) -> None:
    for model, behaviour in CAST.items():
        await fleet.add(model, behaviour=behaviour.changed({}), **values)


@pytest.mark.npm
async def test_openai(fleet: Fleet, sdks: Path) -> None:
    await cast(fleet)
    await fleet.add("responder", apis=responses.PATHS, row={"native_apis": sorted(responses.PATHS)})
    await fleet.add("whisper-1", "tts-1", "dall-e-3", "gpt-4o", "org/with-a-slash:latest")
    await passes(fleet, sdks, "openai.mjs")
    clerk = fleet.nodes[list(CAST).index("clerk")]
    assert [b'"json_schema"' in seen.body for seen in clerk.inferences] == [True, True]


@pytest.mark.npm
@pytest.mark.parametrize("native", [True, False], ids=["native", "translated"])
async def test_anthropic(fleet: Fleet, sdks: Path, native: bool) -> None:
    await cast(fleet, **({"apis": messages.PATHS, "row": {"native_apis": sorted(messages.PATHS)}} if native else {}))
    await passes(fleet, sdks, "anthropic.mjs")
    paths = {seen.path for node in fleet.nodes for seen in node.inferences}
    assert ("/v1/messages" in paths) is native
