"""The state that processes share: slots and queue in Redis, asked by each; alone while Redis is away.

It is the state of one process (`MemoryState`), whose answers Redis gives while it can: who waits, waits here too, so
that a lost connection changes who decides and loses nobody. Alone, a node's limit holds for each process by itself.
What Redis does in one step is in `redis_scripts.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import hiredis

from routing.core.queue import Waiting
from routing.core.select import LiveFigures, Selection, Strategy, select_node
from routing.core.table import NodeEntry, RoutingTable
from routing.state.hour import Hour
from routing.state.memory import MemoryLease, MemoryPlace, MemoryState
from routing.state.redis_link import Argument, RedisDown, RedisLink
from routing.state.redis_scripts import (
    ALL,
    CHANNEL,
    FULL,
    GONE,
    JOIN,
    LEAVE,
    QUEUE,
    RELEASE,
    RESTATE,
    SYNC,
    TAKE,
    UNQUEUE,
)

log = logging.getLogger("llmlb.redis")

# How old the figures of other processes may be for choosing a node without a limit, and on the dashboard.
SYNC_SECONDS: Final = 0.5
# For a request that has its place already.
ALWAYS: Final = 1_000_000_000


class SharedFigures(LiveFigures):
    """`in_flight` is what all processes have on a node, as far as known; `own` what this one has."""

    def __init__(self) -> None:
        super().__init__()
        self.own: dict[int, int] = {}

    def begin(self, node: NodeEntry) -> None:
        super().begin(node)
        self.own[node.id] = self.own.get(node.id, 0) + 1

    def end(self, node_id: int) -> None:
        super().end(node_id)
        left = self.own[node_id] - 1
        if left:
            self.own[node_id] = left
        else:
            del self.own[node_id]

    def elsewhere(self, node_id: int, count: int) -> None:
        """Other processes have this many requests on the node."""
        if total := self.own.get(node_id, 0) + max(0, count):
            self.in_flight[node_id] = total
        else:
            self.in_flight.pop(node_id, None)

    def all_elsewhere(self, counts: Mapping[int, int]) -> None:
        """As `elsewhere`, of every node: those not named have none."""
        self.in_flight = dict(self.own)
        for node_id, count in counts.items():
            self.elsewhere(node_id, count)


class RedisState(MemoryState):
    """`State` over all processes. Belongs to the loop of its link; `link` is started after this is made."""

    live: SharedFigures

    def __init__(self, link: RedisLink, *, strategy: Strategy, queue_max: int) -> None:
        super().__init__(strategy=strategy, queue_max=queue_max)
        self.live = SharedFigures()
        self._link = link
        self._session = ""  # empty while this process is alone
        self._sessions = itertools.count(1)
        self._numbers = itertools.count(1)
        self._tickets: dict[int, MemoryPlace] = {}
        self._unlimited: set[int] = set()  # nodes without a limit whose count Redis has yet to be told
        self._waiting_elsewhere = 0
        self._hours_elsewhere: list[Hour] = []
        self._next_sync: asyncio.TimerHandle | None = None
        link.load(*ALL)
        link.on_up(self._join)
        link.on_down(self._alone)
        link.on_beat(partial(self._sync, look_for_dead=True))

    # --- what requests ask ----------------------------------------------------------------------------------------

    def take_now(self, model: str, key: int, tried: Collection[int] = (), affinity: int = 0) -> MemoryLease | None:
        return None if self._session else super().take_now(model, key, tried, affinity)

    async def take(self, model: str, key: int, tried: Collection[int] = (), affinity: int = 0) -> MemoryLease | None:
        holders = self.table.holders.get(model)
        if not self._session or not holders:
            return await super().take(model, key, tried, affinity)
        selection = select_node(model, holders, self.live, self._strategy, tried, affinity)
        if selection is not None:
            if not selection.node.limit:
                return self._unlimited_lease(selection)
            lease = await self._take(selection, key)
            if lease is not None or not self._session:
                return lease or await super().take(model, key, tried, affinity)
        # What is known of the others may be old: a node that seems to be full may not be, and Redis knows.
        rest = [node for node in holders if node.limit and node.id not in tried]
        if rest and (selection is None or len(rest) > 1):
            lease = await self._take_any(sorted(rest, key=lambda node: self.live.in_flight.get(node.id, 0)), key)
            if lease is not None or not self._session:
                return lease or await super().take(model, key, tried, affinity)
        holders = self.table.holders.get(model, ())  # as they are now
        selection = select_node(model, holders, self.live, self._strategy, tried, affinity) if holders else None
        return self._unlimited_lease(selection) if selection is not None and not selection.node.limit else None

    async def queue(self, model: str, key: int, tried: Collection[int] = (), affinity: int = 0) -> MemoryPlace | None:
        place = await super().queue(model, key, tried, affinity)
        if place is None or place.is_over():
            return place
        place.number = next(self._numbers)
        self._tickets[place.number] = place
        session = self._session
        if not session:
            return place
        try:
            answer = await self._link.run(QUEUE, (), *self._ticket(place), self._queue_max)
        except (RedisDown, hiredis.ReplyError):
            self._in_doubt()
            return place
        except BaseException:
            place.give_up()
            raise
        if answer == GONE:
            self._gone(session)
        elif place.is_over():  # by this process, while Redis was asked
            pass
        elif answer[0] == FULL:
            super()._leave(place)
            if self._tickets.pop(place.number, None) is not None and self._joined_since(session):
                self._link.tell_script(UNQUEUE, (), self._session, key, _wish(place.waiting), place.number)
            self._waiting_elsewhere = answer[1] - len(self._queue)
            self._counters.rejections.add(time.monotonic())
            return None
        else:
            place.position = answer[1]
        return place

    def install(self, table: RoutingTable) -> None:
        if self._session and self._unlimited:
            self._sync()  # what has a limit from now on is counted one by one
        super().install(table)
        if self._session and self._tickets:
            wishes = {_wish(place.waiting): self._nodes_for(place.waiting) for place in self._tickets.values()}
            self._link.tell_script(RESTATE, (), *itertools.chain(*wishes.items()))

    def in_flight_here(self) -> Mapping[int, int]:
        return self.live.own

    def leave(self) -> None:
        if self._session:
            self._link.tell_script(LEAVE, (), self._session)
        self._alone()

    # --- slots ----------------------------------------------------------------------------------------------------

    async def _take(self, selection: Selection, key: int) -> MemoryLease | None:
        """A slot on this very node. It counts here while Redis is asked: what comes meanwhile looks elsewhere."""
        session = self._session
        lease = MemoryLease(self, selection)
        try:
            taken = await self._ask(session, [selection.node], key)
        except BaseException:
            self._take_back(lease, session)
            raise
        if taken:
            return lease
        self._take_back(lease, session)
        return None

    async def _take_any(self, nodes: Sequence[NodeEntry], key: int) -> MemoryLease | None:
        session = self._session
        taken = await self._ask(session, nodes, key)
        if taken <= 0 or self._joined_since(session):
            return None
        return MemoryLease(self, Selection(nodes[taken - 1], "only_free"))

    async def _ask(self, session: str, nodes: Sequence[NodeEntry], key: int) -> int:
        """Take a slot on the first of these that has room.

        Returns: which, from 1; 0 for none, or where Redis is away; GONE where what is taken here was counted anew.
        """
        wanted = itertools.chain.from_iterable((node.id, node.limit) for node in nodes)
        try:
            answer = await self._link.run(
                TAKE, (), session, key, *wanted, unwanted=partial(self._give_back, session, nodes)
            )
        except (RedisDown, hiredis.ReplyError):
            self._in_doubt()
            return 0
        if answer == GONE:
            self._gone(session)
            return GONE
        taken: int = answer[0]
        for node, elsewhere in zip(nodes, answer[1], strict=True):
            self.live.elsewhere(node.id, elsewhere)
        return taken

    def _give_back(self, session: str, nodes: Sequence[NodeEntry], answer: Any) -> None:
        """What Redis counts for somebody who has left. Under an older session it counts no more."""
        if answer == GONE:
            self._gone(session)
        elif answer[0] and session == self._session:
            self._link.tell_script(RELEASE, (), session, nodes[answer[0] - 1].id)

    def _take_back(self, lease: MemoryLease, session: str) -> None:
        """It was none, but counted here: so whoever was told meanwhile of all that is here has to hear of it."""
        lease.forget()
        node_id = lease.node.id
        self.live.end(node_id)
        node = self.table.nodes.get(node_id)
        if node is None or not node.limit:
            self._unlimited.add(node_id)
        elif self._joined_since(session):
            self._link.tell_script(RELEASE, (), self._session, node_id)
        if not self._session:  # it looked taken when this process began to serve who waits here
            self._serve()

    def _joined_since(self, session: str) -> bool:
        return bool(self._session) and self._session != session

    def _unlimited_lease(self, selection: Selection) -> MemoryLease:
        """Nobody needs to be asked; the others are told within `SYNC_SECONDS`."""
        self._unlimited.add(selection.node.id)
        return MemoryLease(self, selection)

    def _released(self, node_id: int, now: float, seconds: float) -> None:
        if not self._session:
            super()._released(node_id, now, seconds)
            return
        self.live.end(node_id)
        self._counters.processing.add(now, seconds)
        node = self.table.nodes.get(node_id)
        if node is not None and node.limit:
            heard = partial(self._heard_elsewhere, self._session, node_id)
            self._link.tell_script(RELEASE, (), self._session, node_id, heard=heard)
        else:
            self._unlimited.add(node_id)

    def _heard_elsewhere(self, session: str, node_id: int, answer: Any) -> None:
        if answer == GONE:
            self._gone(session)
        else:
            self.live.elsewhere(node_id, answer)

    # --- the queue ------------------------------------------------------------------------------------------------

    def _grant(self, waiting: Waiting[MemoryLease]) -> MemoryLease | None:
        """While Redis decides, what is left for this process to give is a node without a limit."""
        place = self._places[id(waiting)]
        if not self._session:
            lease = super()._grant(waiting)
        else:
            free = [node for node in self.table.holders.get(waiting.model, ()) if not node.limit]
            asked = (waiting.model, free, self.live, self._strategy, waiting.tried, waiting.affinity)
            found = select_node(*asked) if free else None
            lease = self._unlimited_lease(found) if found is not None else None
        if lease is not None:
            self._leave_line(place)
        return lease

    def _leave(self, place: MemoryPlace) -> None:
        super()._leave(place)
        self._leave_line(place)

    def _leave_line(self, place: MemoryPlace) -> None:
        self._places.pop(id(place.waiting), None)
        if self._tickets.pop(place.number, None) is not None and self._session:
            waiting = place.waiting
            self._link.tell_script(UNQUEUE, (), self._session, waiting.key, _wish(waiting), place.number)

    def _heard_grant(self, session: str, message: bytes) -> None:
        """A place has got a slot, which is counted already."""
        if session != self._session:
            return
        number, node_id, elsewhere = map(int, message.split())
        self.live.elsewhere(node_id, elsewhere)
        place = self._tickets.get(number)
        if place is None:  # it left in the same moment
            self._link.tell_script(RELEASE, (), session, node_id)
            return
        waiting = place.waiting
        holders = self.table.holders.get(waiting.model, ())
        node = next((node for node in holders if node.id == node_id and node_id not in waiting.tried), None)
        if node is None:  # another process has not heard yet that the node is out
            self._link.tell_script(RELEASE, (), session, node_id)
            self._link.tell_script(QUEUE, (), *self._ticket(place), ALWAYS)
            return
        del self._tickets[number]
        super()._leave(place)
        self._queue.took_turn(waiting.key)
        place.grant(MemoryLease(self, Selection(node, "only_free")))

    def _ticket(self, place: MemoryPlace) -> tuple[Argument, ...]:
        waiting = place.waiting
        return self._session, waiting.key, _wish(waiting), self._nodes_for(waiting), place.number

    def _nodes_for(self, waiting: Waiting[MemoryLease]) -> str:
        holders = self.table.holders.get(waiting.model, ())
        return " ".join(f"{node.id}:{node.limit}" for node in holders if node.limit and node.id not in waiting.tried)

    # --- together and alone ---------------------------------------------------------------------------------------

    def _join(self) -> None:
        """Tell Redis all that is true here, under a new name; what it had under older ones is void."""
        self._session = f"{self._link.process}:{next(self._sessions)}"
        self._link.subscribe(CHANNEL + self._session, partial(self._heard_grant, self._session))
        counts = itertools.chain.from_iterable(self.live.own.items())
        tickets = itertools.chain.from_iterable(self._ticket(place)[1:] for place in self._tickets.values())
        head = (self._session, self._link.process, len(self.live.own))
        self._link.tell_script(JOIN, (), *head, *counts, *tickets)
        self._unlimited.clear()
        self._sync()

    def _alone(self) -> None:
        """Redis is away: from now on this process counts for itself, and serves who waits here."""
        self._session = ""
        self._waiting_elsewhere = 0
        self._hours_elsewhere = []
        self.live.all_elsewhere({})
        if self._next_sync is not None:
            self._next_sync.cancel()
        self._serve()

    def _gone(self, session: str) -> None:
        """Redis forgot the session: this process stood still for so long that it was taken for dead, or all is lost."""
        if session == self._session:
            log.warning("Redis no longer knows this process, it stood still or all was deleted there; joining again")
            self._link.rejoin()

    def _in_doubt(self) -> None:
        """What was asked may have been done or not: start again from what is true here."""
        self._link.renew()

    def _sync(self, *, look_for_dead: bool = False) -> None:
        """Tell what is not told one by one, and hear how the others are."""
        if not self._session:
            return
        if self._next_sync is not None:
            self._next_sync.cancel()
        told, self._unlimited = self._unlimited, set()
        counts: Iterable[int] = itertools.chain.from_iterable((id, self.live.own.get(id, 0)) for id in told)
        self._link.tell_script(
            SYNC, (), self._session, super()._hour().packed(), int(look_for_dead), *counts,
            heard=partial(self._heard_sync, self._session),
        )  # fmt: skip
        self._next_sync = asyncio.get_running_loop().call_later(SYNC_SECONDS, self._sync)

    def _heard_sync(self, session: str, answer: Any) -> None:
        if answer == GONE:
            self._gone(session)
        if answer == GONE or session != self._session:
            return
        waiting, totals, held, hours = answer
        own = _numbers(held)
        self.live.all_elsewhere({id: total - own.get(id, 0) for id, total in _numbers(totals).items()})
        self._waiting_elsewhere = max(0, waiting - len(self._tickets))
        me = session.encode()
        self._hours_elsewhere = [Hour.unpack(hours[i + 1]) for i in range(0, len(hours), 2) if hours[i] != me]

    def _hour(self) -> Hour:
        return Hour.sum([super()._hour(), *self._hours_elsewhere])


def _wish(waiting: Waiting[MemoryLease]) -> str:
    """What a place waits for: a model, on any node but those tried."""
    return f"{waiting.model}|{','.join(map(str, sorted(waiting.tried)))}"


def _numbers(flat: Sequence[bytes]) -> dict[int, int]:
    return {int(flat[i]): int(flat[i + 1]) for i in range(0, len(flat), 2)}
