"""What the README tells a new user to type works."""

from __future__ import annotations

import os
import re
import subprocess

from tests.blackbox.conftest import MakeNode, MakeProduct, models
from tests.support.product import ROOT, wait_until

README = (ROOT / "README.md").read_text()
COMMANDS = [block.strip() for block in re.findall(r"```sh\n(curl .*?)```", README, flags=re.DOTALL)]


def test_each_curl_of_the_readme_works(product: MakeProduct, node: MakeNode) -> None:
    model = "llama3.2:3b"
    assert len(COMMANDS) == 3
    assert model in README
    with product() as running:
        fake = node((model,))
        answers = []
        for command in COMMANDS:
            here = command.replace("http://127.0.0.1:32768", running.url).replace("http://192.168.1.20:11434", fake.url)
            answers.append(shell(here, KEY=running.key))
            wait_until(lambda: model in models(running), seconds=10, what="the node's model is offered")
    added, listed, streamed = answers
    assert '"name": "desk"' in added or '"name":"desk"' in added
    assert model in listed
    assert streamed.startswith("data: ")
    assert streamed.rstrip().endswith("[DONE]")


def shell(command: str, **variables: str) -> str:
    environment = {**os.environ, **variables, "no_proxy": "*"}
    done = subprocess.run(
        ["bash", "-c", command.replace("curl ", "curl --silent --show-error --fail-with-body ", 1)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
