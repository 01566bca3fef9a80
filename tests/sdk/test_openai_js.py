"""The official JavaScript SDK of OpenAI, unchanged but for its base URL."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from nodes.fake_node import Behaviour
from tests.routing.conftest import Fleet

HERE = Path(__file__).parent / "js" / "openai"
TEXT = "fake-0 fake-1 fake-2 fake-3 fake-4 "


async def run(*command: str, at: Path, **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=at,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(90):
            out, error = await process.communicate()
    except TimeoutError:
        process.kill()
        out, error = await process.communicate()
    return process.returncode or 0, out.decode(), error.decode()


@pytest.fixture
async def sdk(request: pytest.FixtureRequest) -> Path:
    """Where the SDK is installed: once, in pytest's cache, as the lock file says."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js with npm is not installed")
    assert request.config.cache is not None
    place = request.config.cache.mkdir("openai-js")
    lock = (HERE / "package-lock.json").read_text()
    done = place / "installed"
    if not done.exists() or done.read_text() != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, place)
        code, _, error = await run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", at=place)
        if code:
            pytest.skip(f"npm could not install the SDK: {error.strip().splitlines()[-1:]}")
        done.write_text(lock)
    shutil.copy(HERE / "smoke.mjs", place)
    return place


@pytest.mark.npm
@pytest.mark.parametrize("native", [True, False], ids=["native", "translated"])
async def test_the_sdk_notices_nothing(fleet: Fleet, sdk: Path, native: bool) -> None:
    own = {"apis": ["/v1/responses"], "row": {"native_apis": ["/v1/responses"]}} if native else {}
    await fleet.add("model-a", behaviour=Behaviour(encoding="float"), **own)
    code, out, error = await run("node", "smoke.mjs", at=sdk, LLMLB_URL=f"{fleet.url}/v1", LLMLB_KEY=fleet.key)
    assert code == 0, error
    learnt = json.loads(out)
    assert learnt["chat"] == learnt["streamed"] == learnt["response"] == TEXT
    assert learnt["dimensions"] == [8, 8]
    assert (learnt["events"][0], learnt["events"][-1]) == ("response.created", "response.completed")
    assert learnt["events"].count("response.output_text.delta") == 5
    assert learnt["models"] == ["model-a"]
    assert learnt["error"] == {"type": "NotFoundError", "status": 404, "code": "model_not_found"}
