"""Chat with a model of a running node in the terminal. Ctrl-C ends an answer, Ctrl-D or /bye the conversation."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from nodes.runtime.cli.places import add_node_arguments, node_of
from nodes.runtime.cli.talking import NodeClient, NodeRefused

CHAT: Final = "/v1/chat/completions"
LOADING: Final = 503
BUSY: Final = 429
LOAD_SECONDS: Final = 900.0
ENDS: Final = frozenset({"/bye", "/exit", "/quit"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="its id, as `list` shows it")
    parser.add_argument("prompt", nargs="*", help="one question; without it a conversation, or what is piped in")
    parser.add_argument("--system", default="", help="what the model is told before everything else")
    parser.add_argument("--max-tokens", type=int, default=0, help="longest answer, in tokens")
    add_node_arguments(parser)


def run(options: argparse.Namespace) -> int:
    node = node_of(options)
    chat = Chat(node, options.model.lower(), options.system, options.max_tokens)
    chat.load()
    prompt = " ".join(options.prompt) or ("" if sys.stdin.isatty() else sys.stdin.read().strip())
    if prompt:
        chat.say(prompt)
        return 0
    for line in _lines():
        chat.say(line)
    return 0


def _lines() -> Iterator[str]:
    """What a person types, until they leave."""
    while True:
        try:
            line = input(">>> ").strip()
        except EOFError:
            print()
            return
        if line in ENDS:
            return
        if line:
            yield line


class Chat:
    """A conversation, with all that was said in it."""

    def __init__(self, node: NodeClient, model: str, system: str, max_tokens: int) -> None:
        self._node = node
        self._body: dict[str, Any] = {"model": model, "stream": True}
        if max_tokens:
            self._body["max_tokens"] = max_tokens
        self._said: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []

    def load(self) -> None:
        """Have the model loaded, and wait for it. Raises: CommandFailed."""
        until = time.monotonic() + LOAD_SECONDS
        told = False
        while self._node.ask("POST", "/api/models/load", {"model": self._body["model"]})["state"] != "ready":
            if time.monotonic() > until:
                raise NodeRefused(LOADING, "the model takes too long to load")
            if not told and sys.stderr.isatty():
                print("Loading …", file=sys.stderr, flush=True)
                told = True
            time.sleep(0.5)

    def say(self, text: str) -> None:
        """Ask, and print the answer as it comes. Raises: CommandFailed."""
        asked = [*self._said, {"role": "user", "content": text}]
        answer = ""
        try:
            for piece in self._pieces(asked):
                answer += piece
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
        print()
        self._said = [*asked, {"role": "assistant", "content": answer}]

    def _pieces(self, messages: list[dict[str, str]]) -> Iterator[str]:
        """The answer's text. A node that is busy, or loading, is asked again when it says."""
        while True:
            try:
                for event in self._node.events(CHAT, {**self._body, "messages": messages}):
                    for choice in event.get("choices", []):
                        yield choice.get("delta", {}).get("content") or ""
                return
            except NodeRefused as error:
                if error.status not in {LOADING, BUSY} or not error.retry_after:
                    raise
                time.sleep(error.retry_after)
