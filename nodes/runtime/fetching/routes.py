"""Pulls and deletion as the node's API. Mounted by the serving app: `routes(pulls, …)` are its `Route`s.

`POST /api/pulls` begins one (202), `GET /api/pulls` lists them, `GET /api/pulls/<task_id>` is one of them,
`DELETE /api/pulls/<task_id>` cancels it, `DELETE /api/models/<id>` deletes a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from nodes.runtime.fetching.failures import BadWish, FetchFailed, OriginRefused
from nodes.runtime.fetching.pulls import Pulls
from nodes.runtime.fetching.removal import delete_model
from nodes.runtime.fetching.sources import Wish
from nodes.runtime.registry import ModelRegistry
from nodes.runtime.serving.http import Refused, Request, Response, Route

TEXTS: Final = ("model", "filename", "quantization", "revision", "sha256")


def routes(
    pulls: Pulls, registry: ModelRegistry, *, unload: Callable[[str], Awaitable[object]], changed: Callable[[], object]
) -> list[Route]:
    """`unload` stops a model's engine before its files go; `changed` has the directory looked at again."""
    handlers = _Handlers(pulls, registry, unload, changed)
    return [
        Route("POST", "/api/pulls", handlers.begin),
        Route("GET", "/api/pulls", handlers.list_all),
        Route("GET", "/api/pulls/*", handlers.show),
        Route("DELETE", "/api/pulls/*", handlers.cancel),
        Route("DELETE", "/api/models/*", handlers.delete),
    ]


class _Handlers:
    def __init__(
        self,
        pulls: Pulls,
        registry: ModelRegistry,
        unload: Callable[[str], Awaitable[object]],
        changed: Callable[[], object],
    ) -> None:
        self._pulls = pulls
        self._registry = registry
        self._unload = unload
        self._changed = changed

    async def begin(self, request: Request) -> Response:
        """202 with the task; the same task for who asks for the same again."""
        wish = _wish(await request.document())
        try:
            pull = self._pulls.start(wish)
        except OriginRefused as error:
            raise Refused(403, "origin_refused", str(error)) from error
        except BadWish as error:
            raise Refused(400, "invalid_pull", str(error), param="model") from error
        return Response.of(pull.progress.as_json(), 202)

    async def list_all(self, request: Request) -> Response:
        return Response.of({"pulls": [pull.progress.as_json() for pull in self._pulls.all()]})

    async def show(self, request: Request) -> Response:
        pull = self._pulls.get(request.rest)
        if pull is None:
            raise Refused(404, "unknown_pull", "There is no such pull.")
        return Response.of(pull.progress.as_json())

    async def cancel(self, request: Request) -> Response:
        """What has arrived is kept: the same pull later goes on from there."""
        pull = self._pulls.get(request.rest)
        if pull is None:
            raise Refused(404, "unknown_pull", "There is no such pull.")
        pull.cancel()
        return Response.of(pull.progress.as_json())

    async def delete(self, request: Request) -> Response:
        listed = self._registry.get(request.rest)
        if listed is None:
            raise Refused(404, "model_not_found", f"There is no model {request.rest!r} here.")
        await self._unload(listed.model.id)
        try:
            freed = await asyncio.to_thread(delete_model, listed.model, self._registry.models_dir)
        except FetchFailed as error:
            raise Refused(409, "cannot_delete", str(error)) from error
        self._changed()
        return Response.of({"deleted": listed.model.id, "freed_bytes": freed})


def _wish(given: dict[str, Any]) -> Wish:
    """Raises: Refused (400)."""
    texts = {name: given.get(name) or "" for name in TEXTS}
    for name, value in texts.items():
        if not isinstance(value, str) or len(value) > 2000:
            raise Refused(400, "invalid_pull", f"{name} must be a text.", param=name)
    manifest = given.get("manifest")
    if manifest is not None and not isinstance(manifest, dict):
        raise Refused(400, "invalid_pull", "manifest must be an object.", param="manifest")
    if not texts["model"] and manifest is None:
        raise Refused(400, "invalid_pull", "Give a model or a manifest.", param="model")
    return Wish(**texts, manifest=manifest)
