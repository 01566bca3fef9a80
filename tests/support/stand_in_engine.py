"""Stands in for engines that cannot be had in tests: llama-server, vllm, mlx_lm.server, sd-server.

`install(folder)` puts programs of those names there; on the path they are the engines of a node. Each has the real
program's command line, and ends where it is given another option; it loads its model for a while, then answers.
A chat's text steers it: `slow` streams a token each 50 ms, `crash` ends the process in the middle of the answer,
`refuse` answers 500. `STAND_IN_LOG` names a file that gets a line for each start and each request.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

PROGRAMS: Final = ("llama-server", "vllm", "mlx_lm.server", "sd-server")
TOKENS: Final = ("Hello", " from", " a", " stand-in", ".")
SLOW_TOKENS: Final = 200
SLOW_SECONDS: Final = 0.05
MARK_OF_A_MODEL_THAT_FAILS: Final = "unloadable"


def install(folder: Path, *programs: str) -> Path:
    """Executables of those names (all, unless told) in `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in programs or PROGRAMS:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" {name} "$@"\n')
        program.chmod(0o755)
    return folder


def options_of(program: str, arguments: list[str]) -> tuple[str, int]:
    """The model's path and the port. Ends the process where an option is none of that program's."""
    parser = argparse.ArgumentParser(prog=program)
    if program == "vllm":
        parser.add_argument("command", choices=["serve"])
        parser.add_argument("model")
        known = ["--served-model-name", "--host", "--port", "--max-num-seqs", "--max-model-len"]
    elif program == "sd-server":
        known = ["--model", "--listen-ip", "--listen-port"]
    elif program == "mlx_lm.server":
        known = ["--model", "--host", "--port"]
    else:
        known = ["--model", "--alias", "--host", "--port", "--parallel", "--n-gpu-layers", "--ctx-size", "--mmproj"]
        known.append("--threads")
        parser.add_argument("--embeddings", action="store_true")
        parser.add_argument("--reranking", action="store_true")
    for name in known:
        parser.add_argument(name)
    told = vars(parser.parse_args(arguments))
    return told["model"], int(told.get("port") or told["listen_port"])


def note(line: str) -> None:
    if path := os.environ.get("STAND_IN_LOG"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    program = ""

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        # sd-server has no page for its health.
        known = ("/v1/models",) if self.program == "sd-server" else ("/health", "/v1/models")
        self._json(200 if self.path in known else 404, {"object": "list", "data": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        asked = json.loads(body) if body.startswith(b"{") else {}
        note(f"{self.program} {self.path} {asked.get('model', '-')} {len(body)}")
        text = json.dumps(asked.get("messages", ""))
        if "refuse" in text:
            self._json(500, {"error": {"message": "this stand-in refuses", "type": "server_error"}})
        elif self.path == "/v1/chat/completions":
            self._chat(asked, text)
        elif self.path.startswith("/v1/images"):
            self._json(200, {"created": 1, "data": [{"b64_json": "aGVsbG8="}]})
        elif self.path == "/v1/embeddings":
            self._json(200, {"object": "list", "model": asked["model"], "data": [{"index": 0, "embedding": [1.0]}]})
        else:
            self._json(404, {"error": {"message": "Not Found", "code": 404}})

    def _chat(self, asked: dict[str, Any], text: str) -> None:
        if "crash" in text and not asked.get("stream"):
            os._exit(9)
        tokens = TOKENS * (SLOW_TOKENS // len(TOKENS)) if "slow" in text else TOKENS
        if not asked.get("stream"):
            time.sleep(len(tokens) * SLOW_SECONDS if "slow" in text else 0)
            message = {"role": "assistant", "content": "".join(tokens)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": len(tokens), "total_tokens": 1 + len(tokens)}
            self._json(200, {"id": "1", "model": asked["model"], "choices": [choice], "usage": usage})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            self._stream(tokens, pause=SLOW_SECONDS if "slow" in text else 0.0, crash="crash" in text)
        except OSError:
            note(f"{self.program} hung up")

    def _stream(self, tokens: tuple[str, ...], *, pause: float, crash: bool) -> None:
        for number, token in enumerate(tokens):
            self._event({"choices": [{"index": 0, "delta": {"content": token}, "finish_reason": None}]})
            if crash and number == 1:
                os._exit(9)
            time.sleep(pause)
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, document: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(document).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _json(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True


def main(program: str, arguments: list[str]) -> None:
    model, port = options_of(program, arguments)
    note(f"{program} start {model} {os.getpid()}")
    if MARK_OF_A_MODEL_THAT_FAILS in model:
        sys.exit("error: this model cannot be loaded")
    assert Path(model).exists(), model
    time.sleep(float(os.environ.get("STAND_IN_LOAD_SECONDS", "0")))
    Answering.program = program
    Server(("127.0.0.1", port), Answering).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
