"""What a batch of requests adds up to: token totals, nodes' counters, keys' last use. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from history.entries import AttemptEntry, RequestEntry

_SUCCESS: Final = "success"
_NEITHER: Final = "cancelled"  # the client's choice: no success, and nobody's failure
_LISTING: Final = "models"  # asking what there is: a request, but no use of a model
_ESTIMATED: Final = "estimated"
_FIRST_SERVER_ERROR: Final = 500

TotalKey = tuple[date, int, str, int]


@dataclass(slots=True)
class Total:
    """What is added to one row of `TokenTotal`."""

    node_name: str = ""
    api_key_name: str = ""
    requests: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated_requests: int = 0
    duration_ms: float = 0.0

    def add(self, entry: RequestEntry) -> None:
        self.node_name = entry.node_name or self.node_name
        self.api_key_name = entry.api_key_name or self.api_key_name
        self.requests += 1
        if entry.outcome != _SUCCESS and entry.outcome != _NEITHER:
            self.failures += 1
        if entry.token_source == _ESTIMATED:
            self.estimated_requests += 1
        self.prompt_tokens += entry.prompt_tokens or 0
        self.completion_tokens += entry.completion_tokens or 0
        self.duration_ms += entry.duration_ms


@dataclass(slots=True)
class NodeCount:
    """What is added to the counters of one node."""

    total: int = 0
    successful: int = 0
    failed: int = 0


def token_totals(entries: Iterable[RequestEntry]) -> list[tuple[TotalKey, Total]]:
    """Sums per day (UTC), node, model and key; sorted, so that two writers lock rows in the same order."""
    totals: defaultdict[TotalKey, Total] = defaultdict(Total)
    for entry in entries:
        if entry.kind != _LISTING:
            totals[_total_key(entry)].add(entry)
    return sorted(totals.items(), key=lambda item: item[0])


def node_counts(entries: Iterable[RequestEntry]) -> list[tuple[int, NodeCount]]:
    """Attempts per node: each is a success, the node's failure, or (a client's mistake or hang-up) neither."""
    counts: defaultdict[int, NodeCount] = defaultdict(NodeCount)
    for entry in entries:
        last = entry.attempts[-1] if entry.attempts else None
        for attempt in entry.attempts:
            count = counts[attempt.node_id]
            count.total += 1
            if attempt is last and entry.outcome == _SUCCESS:
                count.successful += 1
            elif _is_nodes_failure(attempt):
                count.failed += 1
    return sorted(counts.items())


def last_uses(entries: Iterable[RequestEntry]) -> dict[int, datetime]:
    """When each API key was last used."""
    uses: dict[int, datetime] = {}
    for entry in entries:
        if entry.api_key_id is not None:
            uses[entry.api_key_id] = max(entry.started_at, uses.get(entry.api_key_id, entry.started_at))
    return uses


def _total_key(entry: RequestEntry) -> TotalKey:
    return (
        entry.started_at.astimezone(UTC).date(),
        entry.node_id or 0,
        _counted_model(entry),
        entry.api_key_id or 0,
    )


def _counted_model(entry: RequestEntry) -> str:
    """Totals are kept for ever, so a name that a client made up, and no node has served, does not become a row."""
    served = entry.node_id is not None or entry.outcome == _SUCCESS
    return (entry.served_model or entry.model)[:300] if served else ""


def _is_nodes_failure(attempt: AttemptEntry) -> bool:
    return bool(attempt.error) or (attempt.status or 0) >= _FIRST_SERVER_ERROR
