"""`manage.py node …` as a person, or a script, runs it: processes, exit codes, tables, JSON."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodes.fake_node import Behaviour, FakeNode, running_fake_node
from tests.support.file_server import FileServer

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = b"GGUF" + bytes(5000)  # no model that anything could run: what is fetched and deleted is files
Cli = Callable[..., subprocess.CompletedProcess[str]]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def node() -> Iterator[FakeNode]:
    behaviour = Behaviour(says={"role": "assistant", "content": "Tokyo it is."}, download_seconds=1.0)
    with running_fake_node(["org/chat"], kind="xllm", behaviour=behaviour) as fake:
        fake.own.loaded = ["org/chat"]
        yield fake


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """`cli("list", "--json", node=fake)`: run a command. Without a node its port is one that nobody listens on."""

    def run(*arguments: str, node: FakeNode | None = None, stdin: str = "", **env: str) -> Any:
        given = {"LLM_RUNTIME_PORT": str(node.port if node else free_port())}
        given["LLM_RUNTIME_MODELS_DIR"] = str(tmp_path / "models")
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return subprocess.run(
            [sys.executable, "manage.py", "node", *arguments],
            cwd=ROOT,
            env={**kept, **given, **env},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )

    (tmp_path / "models").mkdir()
    return run


@pytest.fixture
def hub() -> Iterator[FileServer]:
    with FileServer().running() as server:
        server.add_repository("org/tiny", {"tiny.gguf": WEIGHTS})
        yield server


def test_list_shows_what_runs_and_why_the_rest_does_not(cli: Cli, node: FakeNode) -> None:
    done = cli("list", node=node)
    assert done.returncode == 0, done.stderr
    heads, good, bad = done.stdout.splitlines()
    assert heads.split() == ["MODEL", "SIZE", "QUANT", "ENGINE"]
    assert good.split() == ["org/chat", "93.8", "MiB", "Q4_1", "llama.cpp"]
    assert "model.gguf is cut off" in bad
    models = json.loads(cli("list", "--json", node=node).stdout)["models"]
    assert [(model["id"], model["executable"]) for model in models] == [("org/chat", True), ("org/broken", False)]


def test_without_a_node_the_directory_is_listed(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "models" / "broken.gguf").write_bytes(b"GGUF")
    done = cli("list", "--json")
    assert done.returncode == 0, done.stderr
    [model] = json.loads(done.stdout)["models"]
    assert (model["id"], model["executable"]) == ("broken", False)
    assert model["reason"]
    assert cli("show", "broken").stdout.splitlines()[0].split() == ["Model", "broken"]


def test_a_directory_that_is_not_there_is_an_error(cli: Cli, tmp_path: Path) -> None:
    done = cli("list", "--models", str(tmp_path / "nowhere"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("node: the models directory cannot be read")


def test_show(cli: Cli, node: FakeNode) -> None:
    done = cli("show", "Org/Chat", node=node)
    assert "4096 tokens" in done.stdout
    assert json.loads(cli("show", "org/chat", "--json", node=node).stdout)["engine"] == "llama.cpp"
    missing = cli("show", "org/none", node=node)
    assert (missing.returncode, missing.stdout) == (1, "")


@pytest.mark.parametrize(
    "arguments",
    [("ps",), ("stop", "a"), ("run", "a", "hi"), ("list", "--host", "127.0.0.1"), ("pull", "a/b", "--port", "9")],
)
def test_a_node_that_is_not_there_is_exit_code_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no node answers at" in done.stderr


def test_ps(cli: Cli, node: FakeNode) -> None:
    assert cli("ps", node=node).stdout.splitlines()[1].split()[:3] == ["org/chat", "llama.cpp", "ready"]
    assert json.loads(cli("ps", "--json", node=node).stdout)["models"][0]["pid"] == 4711


def test_stop(cli: Cli, node: FakeNode) -> None:
    assert cli("stop", "org/chat", node=node).stdout == "org/chat is unloaded.\n"
    asked = next(request for request in node.seen if request.path == "/api/models/unload")
    assert json.loads(asked.body) == {"model": "org/chat"}


def test_run_answers_one_question(cli: Cli, node: FakeNode) -> None:
    done = cli("run", "org/chat", "--max-tokens", "9", "What is", "the capital?", "--system", "Be brief.", node=node)
    assert (done.returncode, done.stdout) == (0, "Tokyo it is.\n"), done.stderr
    sent = json.loads(node.inferences[0].body)
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the capital?"},
    ]
    assert (sent["max_tokens"], sent["stream"]) == (9, True)


def test_run_takes_its_question_from_a_pipe(cli: Cli, node: FakeNode) -> None:
    assert cli("run", "org/chat", node=node, stdin="Hi!\n").stdout == "Tokyo it is.\n"
    assert json.loads(node.inferences[0].body)["messages"][0]["content"] == "Hi!"


def test_run_says_what_the_node_says(cli: Cli, node: FakeNode) -> None:
    done = cli("run", "org/none", "hi", node=node)
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not exist" in done.stderr


def test_a_key_is_sent(cli: Cli) -> None:
    with running_fake_node(["org/chat"], kind="xllm", api_key="secret") as node:
        refused = cli("ps", node=node)
        assert refused.returncode == 1
        assert "LLM_RUNTIME_API_KEY" in refused.stderr
        assert cli("ps", node=node, LLM_RUNTIME_API_KEY="secret").returncode == 0


def test_pull_at_a_node_shows_how_far_it_is(cli: Cli, node: FakeNode) -> None:
    done = cli("pull", "org/new", node=node)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "org/new is here: 190.7 MiB.\n"
    assert done.stderr.splitlines()[-1].startswith("[########################]  100 %")
    assert len(done.stderr.splitlines()) > 1


def test_pull_without_a_node_fetches_into_the_directory(cli: Cli, hub: FileServer, tmp_path: Path) -> None:
    done = cli("pull", "org/tiny", "--json", HF_BASE_URL=hub.url)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout)
    assert (last["model"], last["status"], last["progress"]) == ("org/tiny", "success", 1.0)
    file = tmp_path / "models" / "org" / "tiny" / "tiny.gguf"
    assert file.read_bytes() == WEIGHTS
    removed = cli("rm", "org/tiny")
    assert (removed.returncode, removed.stdout) == (0, "org/tiny is deleted: 4.9 KiB freed.\n")
    assert not file.parent.parent.exists()


def test_a_pull_that_fails_is_exit_code_1_and_says_why(cli: Cli, hub: FileServer, node: FakeNode) -> None:
    done = cli("pull", "org/none", HF_BASE_URL=hub.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no such model" in done.stderr
    assert cli("pull").returncode == 1
    node.behaviour = node.behaviour.changed({"download_error": "the disk is full"})
    assert "node: the disk is full" in cli("pull", "org/new", node=node).stderr


def test_pull_of_a_manifest_in_a_file(cli: Cli, hub: FileServer, tmp_path: Path) -> None:
    manifest = {
        "model_id": "team/tuned",
        "files": [{"filename": "a.gguf", "url": f"{hub.url}/org/tiny/resolve/abc123/tiny.gguf"}],
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    done = cli("pull", "--manifest", str(tmp_path / "manifest.json"), HF_BASE_URL=hub.url)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / "team" / "tuned" / "a.gguf").is_file()


def test_rm_at_a_node(cli: Cli, node: FakeNode) -> None:
    assert cli("rm", "org/chat", node=node).returncode == 0
    assert node.models == []
    assert cli("rm", "org/chat", node=node).returncode == 1


def test_a_bad_setting_is_one_line(cli: Cli) -> None:
    done = cli("list", LLM_RUNTIME_PORT="x")
    assert (done.returncode, done.stderr) == (1, "node: LLM_RUNTIME_PORT=x: must be a number from 1 to 65535.\n")


def test_help_names_every_command(cli: Cli) -> None:
    text = cli("--help").stdout
    assert all(f"\n    {name} " in text for name in ("serve", "run", "pull", "list", "show", "rm", "stop", "ps"))


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    """`node list | head`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "manage.py", "node", "list", "--json"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "LLM_RUNTIME_MODELS_DIR": str(tmp_path)},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [("bake",), ("list", "--colour"), ("show",)])
def test_a_mistake_in_the_arguments_is_not_a_node_that_is_away(cli: Cli, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("usage: manage.py node")
