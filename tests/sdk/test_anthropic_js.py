"""Anthropic's official JavaScript SDK, unchanged: one look at chat, streaming, tools, counting and typed errors."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nodes.fake.messages import PATHS
from nodes.fake_node import Behaviour
from tests.routing.conftest import Fleet

SCRIPT = Path(__file__).parent / "js" / "anthropic"
SAYS = {
    "content": "Let me look.",
    "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"東京"}'}}
    ],
}


async def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a thread: the gateway answers on this loop meanwhile."""
    return await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.npm
@pytest.mark.parametrize("speaks", [True, False], ids=["native", "translated"])
async def test_the_javascript_sdk(fleet: Fleet, tmp_path: Path, speaks: bool) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js is not installed")
    shutil.copytree(SCRIPT, tmp_path, dirs_exist_ok=True)
    install = await run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", cwd=tmp_path)
    if install.returncode != 0:
        pytest.skip(f"npm could not install the SDK: {install.stderr.strip()[-200:]}")
    row = {"native_apis": sorted(PATHS)} if speaks else {}
    await fleet.add("model-a", apis=PATHS if speaks else (), row=row, behaviour=Behaviour(says=SAYS))
    result = await run("node", "smoke.mjs", cwd=tmp_path, GATEWAY_URL=fleet.url, GATEWAY_KEY=fleet.key)
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    for content in (seen["content"], seen["streamed"]):
        assert [block["type"] for block in content] == ["text", "tool_use"]
        assert content[1]["input"] == {"city": "東京"}
    assert seen["text"] == "Let me look."
    assert seen["stop"] == ["tool_use", "tool_use"]
    assert seen["counted"] > 0
    assert (seen["error"]["isNotFound"], seen["error"]["status"]) == (True, 404)
    assert seen["error"]["body"]["error"]["type"] == "not_found_error"
