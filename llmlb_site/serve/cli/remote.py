"""Another llmlb, over its management API."""

from __future__ import annotations

from typing import Any, Final

import httpx

from llmlb_site.serve.cli.source import Row
from nodes.runtime.cli.failures import CommandFailed, NotReachable

TIMEOUT_SECONDS: Final = 10.0


class Remote:
    """`key` needs `endpoints.read`, and `api_keys.manage` for the keys."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS)

    def state(self) -> Row:
        ready = self._answer("/readyz")
        return {"state": _document(ready).get("status", "not answering"), "url": self._url, **self._get("/api/version")}

    def nodes(self) -> list[Row]:
        return list(self._get("/api/nodes")["nodes"])

    def keys(self) -> list[Row]:
        return list(self._get("/api/api-keys")["api_keys"])

    def _get(self, path: str) -> Row:
        answer = self._answer(path)
        document = _document(answer)
        if answer.status_code == 200:
            return document
        if answer.status_code == 401:
            raise CommandFailed("it wants an API key: set LLMLB_API_KEY")
        error = document.get("error")
        said = error.get("message") if isinstance(error, dict) else None
        raise CommandFailed(str(said or f"{path} answered {answer.status_code}"))

    def _answer(self, path: str) -> httpx.Response:
        try:
            return self._client.get(self._url + path)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NotReachable(f"{self._url} cannot be reached: {error}") from error


def _document(answer: httpx.Response) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
