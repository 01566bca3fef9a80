"""What a gateway process holds: the fleet, the keys, the slots, the connections, the recorder."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from history.recorder import Recorder
from llmlb_site.lib.config import Config
from llmlb_site.lib.upstream.base import Target, Upstream
from llmlb_site.lib.upstream.client import PooledClient
from models_catalog.providers import PROVIDERS
from nodes import services
from routing.control import Control
from routing.core.select import STRATEGIES
from routing.core.table import NodeEntry, Pair, Principal, RoutingTable
from routing.metrics import Figures, Metrics, together
from routing.siblings import Siblings
from routing.state.base import State
from routing.state.limits import Limiter, MemoryLimiter
from routing.state.memory import MemoryState
from routing.state.redis import RedisState
from routing.state.redis_key import SameKey
from routing.state.redis_limits import RedisLimiter
from routing.state.redis_link import RedisLink
from routing.state.redis_stored import RedisStored
from routing.state.stored import MemoryStored, StoredResponses

log = logging.getLogger("llmlb.routing")


class Engine:
    """One per gateway process; belongs to the event loop that it was started on.

    It is the `Fleet` that attempts talk to: what they say takes effect in this process at once, and in the database,
    and so everywhere else, a moment later.
    """

    def __init__(self, config: Config, *, upstream: Upstream | None = None, recorder: Recorder | None = None) -> None:
        self.config = config
        self.link = RedisLink(config.redis_url) if config.redis_url else None
        self.state = _state(config, self.link)
        if self.link is not None:
            SameKey(self.link)
        self.stored: StoredResponses = RedisStored(self.link) if self.link is not None else MemoryStored()
        self.principals: Mapping[str, Principal] = {}
        self.recognised: dict[bytes, Principal] = {}  # see `gateway.auth.recognise`
        self.upstream = upstream or PooledClient(connect_timeout=config.connect_timeout)
        self.recorder = recorder or Recorder()
        self.metrics = Metrics()
        self.siblings: Siblings | None = None  # set before the start, where `serve` runs several processes
        self.limits: Limiter = RedisLimiter(self.link) if self.link is not None else MemoryLimiter()
        self.draining = False
        self.control = Control(self._install, self._install_principals, self._on_loop, self.limits.at_least)
        self._targets: dict[int, Target] = {}
        self._provider_targets: dict[str, Target] = {}
        self._pending: dict[Pair, str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.recorder.start()
        if self.link is not None:
            await self.link.start()
        await asyncio.to_thread(self.control.start)
        if self.siblings is not None:
            self.siblings.start(self._figures_here)
        await asyncio.sleep(0)  # the first tables were handed to this loop: let it take them

    async def stop(self) -> None:
        """Everything that requests left to be written is written."""
        await asyncio.to_thread(self.control.stop)
        self.state.leave()
        if self.link is not None:
            await self.link.aclose()
        await self.upstream.aclose()
        await asyncio.to_thread(self.recorder.stop)
        if self.siblings is not None:
            await self.siblings.stop(self._figures_here)

    def figures(self) -> Figures:
        """Of all processes of this `serve`; those of the others are up to half a second old."""
        return together(self._figures_here(), *(self.siblings.others() if self.siblings is not None else ()))

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The one that it was started on."""
        return self._loop

    @property
    def table(self) -> RoutingTable:
        return self.state.table

    # --- what attempts say of nodes -------------------------------------------------------------------------------

    def target(self, node: NodeEntry) -> Target:
        """Where the node is now; where it was, if it was removed since it was chosen."""
        return self._targets.get(node.id) or Target(node.base_url, node.api_key)

    def provider_target(self, provider: NodeEntry) -> Target:
        """Where a cloud provider is, with the key in the header that it wants it in."""
        target = self._provider_targets.get(provider.name)
        auth = PROVIDERS[provider.name].auth(provider.api_key)
        if target is None or (target.base_url, target.auth) != (provider.base_url, auth):
            target = self._provider_targets[provider.name] = Target(provider.base_url, auth=auth)
        return target

    def exclude(self, pair: Pair, reason: str, *, kind: str, on_connect: bool) -> bool:
        """See `attempt.Fleet.exclude` and SPEC-93536000 FR-012."""
        node_id, model = pair
        if all(node.id != node_id for node in self.table.holders.get(model, ())):
            return False
        self._pending[pair] = reason
        self.state.install(self.table.without([pair]))
        self.control.do(lambda: self._store_exclusion(pair, reason, kind, on_connect), what="an exclusion")
        return True

    def take_back(self, pairs: list[Pair], reason: str) -> None:
        for pair in pairs:
            self._pending.pop(pair, None)
        self.control.do(lambda: services.take_back_exclusions(pairs=pairs, reason=reason), what="a re-inclusion")
        self.control.reread()

    def check_node(self, node_id: int) -> None:
        self.control.do(lambda: services.check_node_soon(node_id=node_id), what="a check")

    def not_served(self, node_id: int, path: str) -> None:
        """See `attempt.Fleet.not_served`."""
        node = self.table.nodes.get(node_id)
        if node is not None and path in node.speaks:
            self.state.install(self.table.with_node(replace(node, speaks=node.speaks - {path})))
            self.control.do(lambda: services.forget_api(node_id=node_id, path=path), what="an API that is not served")

    def _figures_here(self) -> Figures:
        figures = self.metrics.figures(self.state, self.recorder)
        figures.tasks = len(asyncio.all_tasks(self._loop)) if self._loop is not None else 0
        return figures

    # --- what the control thread read -----------------------------------------------------------------------------

    def _store_exclusion(self, pair: Pair, reason: str, kind: str, on_connect: bool) -> None:
        if pair not in self._pending:  # taken back before it could be stored
            return
        services.exclude_model_from_node(
            node_id=pair[0], model_id=pair[1], reason=reason, kind=kind, on_connect=on_connect
        )
        self._on_loop(lambda: self._pending.pop(pair, None))

    def _install_principals(self, principals: dict[str, Principal]) -> None:
        self.principals = principals
        self.recognised = {}
        limits = (limit for each in principals.values() if each.limits is not None for limit in each.limits.all)
        self.limits.keep_only(limit.id for limit in limits)

    def _install(self, table: RoutingTable) -> None:
        self._targets = {
            id: Target(node.base_url, node.api_key)
            if id not in self._targets or not _same_target(self.table, table, id)
            else self._targets[id]
            for id, node in table.nodes.items()
        }
        self.state.install(table.without(self._pending) if self._pending else table)

    def _on_loop(self, call: Callable[[], object]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)


def _state(config: Config, link: RedisLink | None) -> State:
    strategy = STRATEGIES[config.load_balancer_mode]
    if link is None:
        return MemoryState(strategy=strategy, queue_max=config.queue_max)
    return RedisState(link, strategy=strategy, queue_max=config.queue_max)


def _same_target(before: RoutingTable, after: RoutingTable, node_id: int) -> bool:
    old, new = before.nodes.get(node_id), after.nodes[node_id]
    return old is not None and old.base_url == new.base_url and old.api_key == new.api_key
