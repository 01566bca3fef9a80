"""The ASGI consumer of `/v1/*`: one request in, one answer out, one row in the history, one slot given back.

It has its own `__call__` instead of Channels' `AsyncHttpConsumer`, which does not see a client hang up while it is
handling (django/channels#1249). Channels routes to it all the same: see `llmlb_site/asgi.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import Final
from urllib.parse import unquote

from access.permissions import Permission
from history.choices import Outcome
from routing.core import prefix
from routing.core.errors import (
    Refusal,
    internal_error,
    method_not_allowed,
    model_forbidden,
    stopping,
    unknown_path,
)
from routing.core.table import NodeEntry, Principal
from routing.engine import Engine
from routing.gateway import (
    account,
    admit,
    auth,
    choose,
    intake,
    listing,
    operations,
    provider,
    relay,
    replies,
    stored,
    uploads,
)
from routing.gateway.attempt import Attempts, Rules
from routing.gateway.clients import client_ip
from routing.gateway.exchange import Exchange, Receive, Scope, Send
from routing.gateway.hangup import HangUp
from routing.protocols.base import Api, Call, Plan
from routing.protocols.providers.errors import no_model, not_configured
from routing.protocols.registry import APIS

log = logging.getLogger("llmlb.gateway")

MODELS: Final = "/v1/models"
INFERENCE: Final = Permission.INFERENCE.value
CLIENT_CLOSED: Final = 499
LAST_WORD_SECONDS: Final = 1.0


class Gateway:
    """Serves inference and the operational probes from one engine."""

    def __init__(self, engine: Engine) -> None:
        config = engine.config
        self._engine = engine
        self._trusted = config.trusted_proxies
        self._max_body = config.max_body_bytes
        self._max_multipart = config.max_multipart_bytes
        # The data directory, which is private and has room; elsewhere the system's own place for such files.
        self._upload_dir = config.data_dir if os.access(config.data_dir, os.W_OK) else None
        self._keep_payloads = config.history_payloads != "none"
        self._heeds_speed = config.load_balancer_mode == "tps"
        self._rules = Rules(
            attempts=config.attempts,
            queue_timeout=config.queue_timeout,
            any_error=config.exclusion_trigger == "any_error",
            by_prefix=config.load_balancer_mode == "prefix",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, client_ip(scope, self._trusted))
        exchange.captures = self._keep_payloads
        try:
            api = APIS.get(exchange.path)
            if api is not None:
                await self._infer(exchange, api)
            else:
                await self._answer_other(exchange, scope)
        except Refusal as refusal:
            await replies.refuse(exchange, refusal)
        except intake.ClientGone:
            self._hung_up(exchange)
        except asyncio.CancelledError:  # the server is leaving and its patience is over
            exchange.outcome = Outcome.BROKEN
            await self._cut(exchange)
            raise
        except Exception:
            await self._failed(exchange)
        finally:
            try:
                if exchange.api is not None:
                    self._settle(exchange)
            finally:
                if exchange.upload is not None:
                    exchange.upload.close()

    # --- the ways -------------------------------------------------------------------------------------------------

    async def _answer_other(self, exchange: Exchange, scope: Scope) -> None:
        """What is no inference."""
        path = exchange.path
        if path == MODELS or path.startswith(MODELS + "/"):
            await self._list_models(exchange)
        elif stored.is_about_stored(path):
            await stored.follow(exchange, self._engine)
        elif path in operations.PATHS:
            await operations.answer(exchange, scope, self._engine)
        else:
            raise unknown_path(exchange.method, path)

    async def _infer(self, exchange: Exchange, api: Api) -> None:
        """The twelve steps of one inference request (contract, section 6)."""
        exchange.dialect = api.dialect
        if exchange.method != "POST":
            raise method_not_allowed(exchange.method, api.path, "POST")
        exchange.api = api
        engine = self._engine
        principal = exchange.principal = auth.recognise(exchange.headers, engine, INFERENCE) or (
            await auth.identify(exchange.headers, engine, Permission.INFERENCE)
        )
        if api.check_headers is not None:
            api.check_headers(exchange.headers)
        if api.read_form is None:
            exchange.body = await intake.read_body(exchange, self._max_body)
            call = intake.understand(exchange, api, principal)
        else:
            form = await uploads.read_form(exchange, self._max_multipart, self._upload_dir)
            call = uploads.understand(exchange, api, form)
        exchange.call = call
        exchange.streaming = call.envelope.stream is True
        if principal.allowed_models and not principal.may_use(prefix.canonical(call.asked_model)):
            raise model_forbidden(call.asked_model)
        if principal.limits is not None:
            await admit.admit(exchange, engine, principal.limits)
        way = None if engine.control.stale else choose.find_way(engine.state.table, api, call.asked_model)
        asked_provider = await self._find_provider(call) if way is None else None
        api.check_parameters(call.envelope)
        if api.inspect is not None:
            call.wants = api.inspect(call)
        if asked_provider is not None:
            await stored.bind(api, call, principal, engine, asked_provider.name)
            await self._ask_provider(exchange, asked_provider)
            return
        if way is None or call.wants:
            await self._find_model(call, api)
        else:
            call.model, call.unfit = way
        if api.is_particular:
            here = await self._look_at_nodes(api, call, principal)
            if here is not None and here.ready is not None:
                exchange.notes = here.notes
                await relay.answer_ready(exchange, here.ready)
                return
        with HangUp(exchange) as hang_up:
            await Attempts(exchange, api, call, engine, self._rules).run()
        if hang_up.seen and not exchange.finished:
            self._hung_up(exchange)

    async def _look_at_nodes(self, api: Api, call: Call, principal: Principal) -> Plan | None:
        """Which of the model's nodes cannot serve this very call; or the answer, where none has to be asked.

        Raises: Refusal, where none can.
        """
        engine = self._engine
        if api.refers_to is not None:
            await stored.bind(api, call, principal, engine)
        holders = engine.table.holders.get(call.model, ())
        call.unfit |= choose.unfit_among(api, call, holders)
        return api.answer_here(call, holders) if api.answer_here is not None else None

    async def _ask_provider(self, exchange: Exchange, asked: NodeEntry) -> None:
        engine = self._engine
        with HangUp(exchange) as hang_up:
            await provider.ask(exchange, asked, engine.provider_target(asked), engine.upstream)
        if hang_up.seen and not exchange.finished:
            self._hung_up(exchange)

    async def _list_models(self, exchange: Exchange) -> None:
        if exchange.method not in ("GET", "HEAD"):
            raise method_not_allowed(exchange.method, exchange.path, "GET, HEAD")
        principal = await auth.identify(exchange.headers, self._engine, Permission.MODELS_READ)
        await self._engine.control.catch_up()
        table = self._engine.table
        if exchange.path == MODELS:
            await replies.json(exchange, listing.list_body(table, principal))
        else:
            name = unquote(exchange.path.removeprefix(MODELS + "/"))
            await replies.json(exchange, listing.one_body(table, principal, name))

    # --- the steps that need the engine ---------------------------------------------------------------------------

    async def _find_provider(self, call: Call) -> NodeEntry | None:
        """The cloud provider that the model's prefix asks for, if it has one. Raises: Refusal (401, 400)."""
        engine = self._engine
        if engine.control.stale:
            await engine.control.catch_up()
        parts = prefix.split(engine.table.resolve(call.asked_model))
        if parts is None:
            return None
        name, call.model = parts
        if not call.model.strip():
            raise no_model(name)
        if name not in engine.table.providers:
            await engine.control.catch_up()
        found = engine.table.providers.get(name)
        if found is None:
            raise not_configured(name)
        return found

    async def _find_model(self, call: Call, api: Api) -> None:
        """Resolve the alias, and refuse what no node can serve: never from a table older than the request."""
        engine = self._engine
        if engine.control.stale or call.asked_model not in engine.table.holders:
            await engine.control.catch_up()
        call.model = engine.table.resolve(call.asked_model)
        choose.require(engine.table, call.model, api.capability, *call.wants)
        call.unfit = choose.unable_nodes(engine.table, call.model, api.capability, *call.wants)

    # --- the ends -------------------------------------------------------------------------------------------------

    def _hung_up(self, exchange: Exchange) -> None:
        exchange.outcome = Outcome.CANCELLED
        exchange.error_code = "client_closed_request"
        exchange.error_message = "the client closed the connection"
        exchange.status = exchange.status or CLIENT_CLOSED

    async def _cut(self, exchange: Exchange) -> None:
        """Say so where there is still a place for it. The server waits but a moment longer for a client to read."""
        refusal = stopping()
        exchange.error_code, exchange.error_message = refusal.code, refusal.message
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                if exchange.first_byte is None:
                    await replies.refuse(exchange, refusal)
                elif not exchange.finished:
                    await relay.end_broken_stream(exchange, refusal)

    async def _failed(self, exchange: Exchange) -> None:
        """A fault of ours: logged with its trace, told without."""
        log.exception("request %s failed in the gateway", exchange.request_id)
        refusal = internal_error()
        if exchange.first_byte is None:
            await replies.refuse(exchange, refusal)
        else:
            exchange.error_code, exchange.error_message = refusal.code, refusal.message

    def _settle(self, exchange: Exchange) -> None:
        engine = self._engine
        tokens = 0
        try:
            entry = account.entry_of(exchange, self._keep_payloads)
            tokens = entry.total_tokens or 0
        finally:  # what is reserved is given back, whatever the row fails of
            if exchange.hold is not None:
                admit.settle(exchange, engine, tokens)
        if self._heeds_speed:
            account.learn_speed(engine.state.live, entry)
        engine.metrics.observe(entry)
        if exchange.provider:
            engine.metrics.observe_cloud(exchange.provider, entry.status, entry.duration_ms / 1000)
        engine.recorder.put(entry)
