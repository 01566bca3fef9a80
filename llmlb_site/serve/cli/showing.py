"""What the commands print: the same of either source."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from llmlb_site.serve.cli.source import Row, Source
from nodes.runtime.cli.showing import print_facts, print_json, print_table

NOT_RUNNING: Final = 2
NOT_READY: Final = 1
READY: Final = frozenset({"ready", "degraded"})
NODE_FIELDS: Final = (
    "id",
    "name",
    "base_url",
    "status",
    "enabled",
    "draining",
    "node_type",
    "concurrency_limit",
    "latency_ms",
    "last_seen",
    "last_error",
    "executable_models",
    "excluded_models",
)
KEY_FIELDS: Final = ("id", "name", "key_prefix", "owner", "state", "permissions", "expires_at", "last_used_at")


def show(command: str, source: Source, *, as_json: bool) -> int:
    """Print one command's answer. Returns its exit code. Raises: CommandFailed."""
    if command == "status":
        return _status(source, as_json)
    rows = {"nodes": _nodes, "models": _models, "keys": _keys}[command]
    rows(source, as_json)
    return 0


def _status(source: Source, as_json: bool) -> int:
    state = source.state()
    nodes = source.nodes()
    routable = [node for node in nodes if _is_routable(node)]
    told = {
        **state,
        "nodes": len(nodes),
        "online": sum(node["status"] == "online" for node in nodes),
        "routable": len(routable),
        "models": len({model for node in nodes for model in node["executable_models"]}),
        "routable_models": len({model for node in routable for model in _included(node)}),
        "excluded_models": sum(len(node["excluded_models"]) for node in nodes),
    }
    if as_json:
        print_json(told)
    else:
        facts = {
            "llmlb": f"{told['state']}, version {told['version']}, {told['url']}",
            "Nodes": f"{told['nodes']}, online {told['online']}, routable {told['routable']}",
            "Models": f"{told['models']}, routable {told['routable_models']}, excluded {told['excluded_models']}",
        }
        print_facts(facts)
    if told["state"] in READY:
        return 0
    return NOT_RUNNING if told["state"] == "not running" else NOT_READY


def _nodes(source: Source, as_json: bool) -> None:
    nodes = source.nodes()
    if as_json:
        return print_json({"nodes": [{name: node.get(name) for name in NODE_FIELDS} for node in nodes]})
    rows = [
        [
            node["name"],
            _state(node),
            node["node_type"],
            f"{len(_included(node))}" + (f" (-{len(node['excluded_models'])})" if node["excluded_models"] else ""),
            "-" if node["latency_ms"] is None else f"{node['latency_ms']:.0f} ms",
            node["base_url"] + (f"  {node['last_error']}" if node["last_error"] else ""),
        ]
        for node in nodes
    ]
    _table(["NODE", "STATE", "TYPE", "MODELS", "LATENCY", "ADDRESS"], rows, "There are no nodes yet.")


def _models(source: Source, as_json: bool) -> None:
    models = _by_model(source.nodes())
    if as_json:
        return print_json({"models": models})
    rows = [
        [model["id"], "yes" if model["routable_on"] else "no", _list(model["nodes"]), _list(model["excluded_on"])]
        for model in models
    ]
    _table(["MODEL", "ROUTABLE", "NODES", "EXCLUDED ON"], rows, "No node lists a model.")


def _keys(source: Source, as_json: bool) -> None:
    keys = source.keys()
    if as_json:
        return print_json({"keys": [{name: key.get(name) for name in KEY_FIELDS} for key in keys]})
    rows = [
        [
            key["name"],
            key["key_prefix"],
            key["state"],
            key["owner"]["username"],
            (key["expires_at"] or "-")[:10],
            ", ".join(key["permissions"]),
        ]
        for key in keys
    ]
    _table(["KEY", "PREFIX", "STATE", "OWNER", "EXPIRES", "MAY"], rows, "There are no API keys yet.")


def _by_model(nodes: Iterable[Row]) -> list[Row]:
    found: dict[str, Row] = {}
    for node in nodes:
        excluded = {each["model"] for each in node["excluded_models"]}
        for name in node["executable_models"]:
            model = found.setdefault(name, {"id": name, "nodes": [], "routable_on": [], "excluded_on": []})
            model["nodes"].append(node["name"])
            if name in excluded:
                model["excluded_on"].append(node["name"])
            elif _is_routable(node):
                model["routable_on"].append(node["name"])
    return [found[name] for name in sorted(found)]


def _included(node: Row) -> set[str]:
    return set(node["executable_models"]) - {each["model"] for each in node["excluded_models"]}


def _is_routable(node: Row) -> bool:
    return bool(node["enabled"] and not node["draining"] and node["status"] == "online")


def _state(node: Row) -> str:
    if not node["enabled"]:
        return "disabled"
    return "draining" if node["draining"] and node["status"] == "online" else str(node["status"])


def _list(names: list[str]) -> str:
    return ", ".join(names) or "-"


def _table(heads: list[str], rows: list[list[str]], nothing: str) -> None:
    if rows:
        print_table(heads, rows)
    else:
        print(nothing)
