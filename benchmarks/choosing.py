"""What choosing a node costs in a large fleet: `python -m benchmarks.choosing`.

1 000 nodes and 10 000 models: one model that every node has, the others on ten nodes each; 2 000 requests in flight.
For each balancer mode the time from the model's name to a node and its slot.
"""

from __future__ import annotations

import random
import statistics
import time
from typing import Final

from benchmarks.side_by_side.samples import percentile
from routing.core.select import STRATEGIES, LiveFigures, Strategy, select_node
from routing.core.table import NodeEntry, RoutingTable

NODES: Final = 1000
MODELS: Final = 10_000
HOLDERS: Final = 10
IN_FLIGHT: Final = 2000
CHOICES: Final = 3000
ROUNDS: Final = 3
COMMON: Final = "model-everywhere"


def fleet() -> RoutingTable:
    nodes = [
        NodeEntry(id=number, name=f"node-{number}", base_url=f"http://10.0.0.1:{number}", latency=0.001)
        for number in range(NODES)
    ]
    pairs = [(number, COMMON) for number in range(NODES)]
    pairs += [
        ((model * 7 + step * 101) % NODES, f"model-{model}") for model in range(MODELS - 1) for step in range(HOLDERS)
    ]
    return RoutingTable.build(nodes, pairs)


def microseconds(table: RoutingTable, strategy: Strategy, model: str) -> list[float]:
    """Of each of many choices, slots being given back at random meanwhile."""
    live = LiveFigures()
    chance = random.Random(1)
    held: list[int] = []
    took = []
    for _ in range(IN_FLIGHT + CHOICES):
        affinity = chance.getrandbits(32)
        began = time.perf_counter_ns()
        found = select_node(model, table.holders[model], live, strategy, (), affinity)
        assert found is not None
        live.begin(found.node)
        took.append((time.perf_counter_ns() - began) / 1000)
        held.append(found.node.id)
        if len(held) > IN_FLIGHT:
            live.end(held.pop(chance.randrange(IN_FLIGHT)))
    return took[IN_FLIGHT:]


def measure() -> dict[str, float]:
    """Median and p99 of each mode, for both kinds of model, in microseconds: of several rounds the middle one."""
    table = fleet()
    figures = {}
    for mode, strategy in STRATEGIES.items():
        for model in (COMMON, "model-17"):
            rounds = [microseconds(table, strategy, model) for _ in range(ROUNDS)]
            holders = len(table.holders[model])
            for share, name in ((0.5, "p50_us"), (0.99, "p99_us")):
                of_each = [percentile(took, share) for took in rounds]
                figures[f"{mode}, {holders} holders, {name}"] = statistics.median(of_each)
    return figures


def worst() -> dict[str, float]:
    """The default mode's and the slowest mode's, over both kinds of model, in microseconds."""
    figures = measure()
    p99 = {name: value for name, value in figures.items() if name.endswith("p99_us")}
    return {
        "default_p99_us": max(value for name, value in p99.items() if name.startswith("least_busy,")),
        "slowest_p50_us": max(value for name, value in figures.items() if name.endswith("p50_us")),
        "slowest_p99_us": max(p99.values()),
    }


def main() -> None:
    for name, value in measure().items():
        print(f"{name.removesuffix('_us')}: {value:.1f} µs")


if __name__ == "__main__":
    main()
