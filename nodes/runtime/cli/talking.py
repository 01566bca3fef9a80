"""Talking to a running node over HTTP, with the standard library alone: a command is to start in no time."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from nodes.runtime.cli.failures import CommandFailed, NotReachable

ASK_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 600.0
ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # compared with, not bound to


class NodeRefused(CommandFailed):
    """The node answered with an error; its words are the message. `retry_after` is seconds, 0 where it does not say."""

    def __init__(self, status: int, text: str, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


class NodeClient:
    """One node. Each call is a connection of its own."""

    def __init__(self, host: str, port: int, api_key: str = "") -> None:
        self.host = ANYWHERE.get(host, host)
        self.port = port
        self._headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def answers(self) -> bool:
        """Whether a node is there, quickly."""
        try:
            self.ask("GET", "/livez", timeout=CONNECT_SECONDS)
        except CommandFailed:
            return False
        return True

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout: float = ASK_SECONDS
    ) -> Any:
        """A JSON document, None where the answer is none. Raises: NotReachable, NodeRefused."""
        with self._answer(method, path, body, timeout) as answer:
            text = answer.read()
        try:
            return json.loads(text)
        except ValueError:
            return None

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The data of a stream of events, until `[DONE]` or the end. Raises: NotReachable, NodeRefused."""
        with self._answer("POST", path, body, ANSWER_SECONDS) as answer:
            for line in answer:
                name, _, data = line.decode(errors="replace").rstrip("\r\n").partition(":")
                if name != "data" or data.strip() == "[DONE]":
                    continue
                try:
                    event = json.loads(data)
                except ValueError as error:
                    raise CommandFailed("the node sent an event that is no JSON") from error
                if "error" in event:
                    raise NodeRefused(200, _words(event, "the node broke off"))
                yield event

    @contextmanager
    def _answer(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode(), self._headers)
            answer = connection.getresponse()
            if answer.status >= 400:
                raise _refusal(answer)
            yield answer
        except ConnectionRefusedError as error:
            raise NotReachable(f"no node answers at {self.address}; `manage.py node serve` starts one") from error
        except (OSError, http.client.HTTPException) as error:
            raise NotReachable(
                f"the node at {self.address} does not answer: {type(error).__name__} {error}".rstrip()
            ) from error
        finally:
            connection.close()


def _refusal(answer: http.client.HTTPResponse) -> NodeRefused:
    try:
        document = json.loads(answer.read())
    except ValueError:
        document = {}
    wait = answer.headers.get("Retry-After", "")
    if answer.status == 401:
        return NodeRefused(401, "the node wants its API key: LLM_RUNTIME_API_KEY")
    text = _words(document, f"the node answered {answer.status}")
    return NodeRefused(answer.status, text, float(wait) if wait.isdigit() else 0.0)


def _words(document: Any, otherwise: str) -> str:
    error = document.get("error") if isinstance(document, dict) else None
    said = error.get("message") if isinstance(error, dict) else error
    return said if isinstance(said, str) and said else otherwise
