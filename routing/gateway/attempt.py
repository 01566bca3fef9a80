"""Step 11: try nodes until one answers, as long as the client has seen nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Final, Protocol

from history.entries import AttemptEntry
from llmlb_site.lib.upstream.base import Headers, Target, Upstream, UpstreamAnswer
from llmlb_site.lib.upstream.faults import ConnectFault, MalformedFault, NodeFault
from routing.core.affinity import affinity_of
from routing.core.errors import Refusal, no_capable_node
from routing.core.retries import RetryBudget
from routing.core.table import NodeEntry, Pair
from routing.gateway import choose, relay, replies
from routing.gateway.answered import BUSY, Answered, AttemptFailed, refusal_for, without_address
from routing.gateway.choose import select_available_node_with_queue
from routing.gateway.exchange import Exchange, HeaderList
from routing.protocols.base import Api, Call, Plan
from routing.state.base import Lease, State

# What a node may know of the client's request besides its body.
_TO_NODE: Final = (
    b"content-type", b"accept", b"user-agent", b"openai-beta", b"anthropic-version", b"anthropic-beta",
)  # fmt: skip
_OF_TRACE: Final = (b"traceparent", b"tracestate")  # of one request alone, as a rule
# No honest one is longer; servers hang up on heads of 8 KB and more, and that would be taken for the node's fault.
HEADER_BYTES: Final = 1024


class Fleet(Protocol):
    """The nodes as an attempt needs them: who has a slot, where they are, and what it has to say of them."""

    @property
    def state(self) -> State: ...

    @property
    def upstream(self) -> Upstream: ...

    def target(self, node: NodeEntry) -> Target: ...

    def exclude(self, pair: Pair, reason: str, *, kind: str, on_connect: bool) -> bool:
        """Take a model on a node out of routing, now. False if it was out already."""

    def take_back(self, pairs: list[Pair], reason: str) -> None:
        """Undo exclusions: the request was to blame, not the nodes."""

    def check_node(self, node_id: int) -> None:
        """Have the node's health checked at once."""

    def not_served(self, node_id: int, path: str) -> None:
        """Remember that the node does not serve an API itself that it was thought to serve."""


@dataclass(slots=True)
class Rules:
    """What all attempts of a process follow: settings, and how many may be tried again."""

    attempts: int
    queue_timeout: float
    any_error: bool = False
    by_prefix: bool = False
    retries: RetryBudget = field(default_factory=RetryBudget)


class Attempts:
    """Serves one request from the nodes."""

    _loading: frozenset[int] = frozenset()
    _failures: Sequence[AttemptFailed] = ()
    _unjudged = False
    _affinity = 0

    def __init__(self, exchange: Exchange, api: Api, call: Call, fleet: Fleet, rules: Rules) -> None:
        self._exchange = exchange
        self._api = api
        self._call = call
        self._fleet = fleet
        self._rules = rules
        self._tried = call.unfit
        if rules.by_prefix:
            self._affinity = affinity_of(call.body)
        self._deadline = time.monotonic() + rules.queue_timeout

    async def run(self) -> None:
        """Answer the client: from a node, or with what the last one failed of.

        Raises: Refusal, where no node could even be tried.
        """
        self._rules.retries.earn()
        while not self._failures or self._may_try_again():
            try:
                lease = await self._choose()
            except Refusal:
                if not self._failures:
                    raise
                break
            try:
                await self._attempt(lease)
                return
            except AttemptFailed as failed:
                failure = failed
            finally:
                lease.release()
            self._tried |= {lease.node.id}
            if not await self._wait_for_load(failure, lease):
                self._failures = (*self._failures, failure)
        self._judge_poison()
        await self._answer_failure(self._failures[-1])

    async def _wait_for_load(self, failure: AttemptFailed, lease: Lease) -> bool:
        """Whether the node only loads the model: others are asked first, then those that load it once more."""
        if not failure.is_loading or failure.answered is None:
            return False
        self._loading |= {lease.node.id}
        if self._others_left():
            return True
        seconds = failure.answered.load_seconds
        if time.monotonic() + seconds > self._deadline:
            return False
        await asyncio.sleep(seconds)
        self._tried -= self._loading
        return True

    def _may_try_again(self) -> bool:
        """What cannot be reached is out of routing at once; nodes that answer errors are spared twice the load."""
        if len(self._failures) >= self._rules.attempts or not self._others_left():
            return False
        self._unjudged = self._failures[-1].answered is not None and not self._rules.retries.spend()
        return not self._unjudged

    def _others_left(self) -> bool:
        holders = self._fleet.state.table.holders.get(self._call.model, ())
        return any(node.id not in self._tried for node in holders)

    async def _choose(self) -> Lease:
        """A slot on a node that can serve this call: one that came while we waited, or has changed, may not."""
        api, call, state = self._api, self._call, self._fleet.state
        principal = self._exchange.principal
        key = principal.key_id if principal is not None else 0
        while True:
            lease = state.take_now(call.model, key, self._tried, self._affinity)
            if lease is None:
                lease = await select_available_node_with_queue(
                    call.model,
                    state=state,
                    exchange=self._exchange,
                    key=key,
                    tried=self._tried,
                    deadline=self._deadline,
                    affinity=self._affinity,
                )
            try:
                fit = (api.why_unfit is None and call.home is None) or choose.is_fit(api, call, lease.node)
            except BaseException:
                lease.release()
                raise
            if fit:
                return lease
            lease.release()
            self._tried |= {lease.node.id}
            if not self._others_left():
                raise no_capable_node(call.model)

    async def _attempt(self, lease: Lease) -> None:
        """One node, from sending to the last byte. Raises: AttemptFailed, with nothing sent to the client."""
        exchange, node = self._exchange, lease.node
        plan = self._api.plan(self._call, node)
        entry = AttemptEntry(node_id=node.id, node_name=node.name, selection_reason=lease.reason)
        exchange.attempts.append(entry)
        began = time.monotonic()
        try:
            await self._send_and_relay(lease, entry, plan)
        except NodeFault as fault:
            entry.error = f"{fault.code}: {fault}"
            self._blame(lease, entry, entry.error, on_connect=isinstance(fault, ConnectFault))
            if exchange.first_byte is None:
                raise AttemptFailed(fault=fault) from None
            await relay.end_broken_stream(exchange, refusal_for(fault, len(exchange.attempts)))
        except AttemptFailed as failure:
            entry.error = failure.reason
            if failure.blame or (self._rules.any_error and not failure.is_loading):
                self._blame(lease, entry, failure.reason)
            raise
        finally:
            entry.duration_ms = (time.monotonic() - began) * 1000

    async def _send_and_relay(self, lease: Lease, entry: AttemptEntry, plan: Plan) -> None:
        exchange = self._exchange
        target = self._fleet.target(lease.node)
        exchange.notes = plan.notes
        exchange.without_address = partial(without_address, target=target)
        if plan.ready is not None:
            entry.status = 200
            await relay.answer_ready(exchange, plan.ready)
            return
        headers = node_headers(exchange, plan.headers)
        answer = await self._fleet.upstream.send(
            target, "POST", plan.path, headers, plan.body, silence=lease.node.timeout
        )
        try:
            entry.status = answer.status
            if 200 <= answer.status < 300:
                await relay.relay(exchange, plan, answer)
                return
            again = await self._node_error(lease, answer, plan)
            if again is not None:
                answer.close()
                await self._send_and_relay(lease, entry, again)
        finally:
            answer.close()

    async def _node_error(self, lease: Lease, answer: UpstreamAnswer, plan: Plan) -> Plan | None:
        """A node said no. Its own fault is tried elsewhere; the client's fault is the client's to read.

        Returns: another way to ask the same node, where it only does not serve the path.
        """
        if answer.status < 400:
            raise MalformedFault("the node answered with a redirect")
        answered = Answered(answer.status, answer.headers, await relay.whole_body(answer))
        answered.body = self._exchange.without_address(answered.body)
        if plan.otherwise is not None and answered.says_no_such_path():
            self._fleet.not_served(lease.node.id, plan.path)
            try:
                return plan.otherwise()
            except Refusal as refusal:  # another node may serve it
                raise AttemptFailed(refusal=refusal, blame=False) from None
        busy = answered.status == BUSY or answered.says_loading()
        at_fault = not busy and (answered.status >= 500 or answered.says_no_such_model())
        if busy or at_fault:
            raise AttemptFailed(answered=answered, blame=at_fault)
        if self._rules.any_error:
            self._blame(lease, self._exchange.attempts[-1], f"status {answered.status}")
        await self._pass_error_on(answered)
        return None

    def _blame(self, lease: Lease, entry: AttemptEntry, reason: str, *, on_connect: bool = False) -> None:
        api, exchange = self._api, self._exchange
        pair = (lease.node.id, self._call.model)
        if api.infers and self._fleet.exclude(pair, reason, kind=api.kind, on_connect=on_connect):
            entry.excluded = True
            exchange.own_exclusions = [*exchange.own_exclusions, pair]
        if on_connect:
            self._fleet.check_node(lease.node.id)

    def _judge_poison(self) -> None:
        """Two nodes that both answer 5xx, well-formed, to one request: the request is to blame, not the nodes.

        A request that no second node could be asked about (`_unjudged`) blames none either.
        """
        exchange = self._exchange
        exchange.poison = sum(failure.well_formed_5xx for failure in self._failures) >= 2
        if not exchange.poison and not (self._unjudged and self._failures[-1].well_formed_5xx):
            return
        if exchange.own_exclusions:
            self._fleet.take_back(list(exchange.own_exclusions), "poison request")
            for entry in exchange.attempts:
                entry.excluded = False

    async def _answer_failure(self, failure: AttemptFailed) -> None:
        if failure.answered is not None:
            await self._pass_error_on(failure.answered)
        elif failure.refusal is not None:
            await replies.refuse(self._exchange, failure.refusal)
        else:
            assert failure.fault is not None
            await replies.refuse(self._exchange, refusal_for(failure.fault, len(self._exchange.attempts)))

    async def _pass_error_on(self, answered: Answered) -> None:
        """The node's own status and error; in our words where what it said is no JSON (a proxy's page, a trace)."""
        exchange = self._exchange
        exchange.error_code = "node_error"
        exchange.error_message = f"the node answered {answered.status}"
        if answered.is_json:
            headers: HeaderList = [
                (name, value) for name, value in replies.forwarded(answered.headers) if name in _ERROR_HEADERS
            ]
            body = exchange.dialect.restate(answered.status, answered.body)
            await replies.answer(exchange, answered.status, headers, body)
            return
        message = f"The node answered {answered.status} with a body that is not JSON."
        kind = "api_error" if answered.status >= 500 else "invalid_request_error"
        await replies.refuse(exchange, Refusal(answered.status, "node_error", message, type=kind))


_ERROR_HEADERS: Final = frozenset({b"content-type", b"retry-after"})


def node_headers(exchange: Exchange, planned: Iterable[tuple[bytes, bytes]] = ()) -> Headers:
    """What the node is told besides the body: by the client, by us, and as `planned` for this node."""
    given = exchange.headers
    told: Sequence[tuple[bytes, bytes]]
    try:
        told = _as_told(*map(given.get, _TO_NODE))
    except _TooLong:
        told = _passed_on(_TO_NODE, map(given.get, _TO_NODE))
    headers = [*told, (b"x-request-id", exchange.request_id.encode("ascii")), *planned]
    if b"traceparent" in given or b"tracestate" in given:
        headers += _passed_on(_OF_TRACE, map(given.get, _OF_TRACE))
    return headers


class _TooLong(Exception):
    """A header is longer than a node is told."""


@lru_cache(maxsize=256)
def _as_told(*values: bytes | None) -> tuple[tuple[bytes, bytes], ...]:
    """The same for all requests of one client program. Raises: _TooLong, and what raises is not remembered."""
    if any(value and len(value) > HEADER_BYTES for value in values):
        raise _TooLong
    return tuple(_passed_on(_TO_NODE, values))


def _passed_on(names: Iterable[bytes], values: Iterable[bytes | None]) -> Headers:
    return [(name, value) for name, value in zip(names, values, strict=True) if value and len(value) <= HEADER_BYTES]
