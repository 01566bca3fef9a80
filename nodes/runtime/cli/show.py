"""Show all that is known of one model."""

from __future__ import annotations

import argparse

from nodes.runtime.cli import places
from nodes.runtime.cli.showing import print_facts, print_json, size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="its id, as `list` shows it")
    places.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    model = places.known(places.place_of(options).models(), options.model)
    if options.as_json:
        print_json(model)
        return 0
    context, tensors, experts = (model[name] for name in ("context_length", "tensor_count", "expert_count"))
    facts = {
        "Model": model["id"],
        "Runs on": model["engine"],
        "Cannot run": model["reason"],
        "State": model.get("state", ""),
        "Format": str(model["format"]),
        "Architecture": ", ".join(model["architectures"]),
        "Quantization": model["quantization"],
        "Size": size(model["size_bytes"]),
        "Context": f"{context} tokens" if context else "",
        "Chat template": "yes" if model["has_chat_template"] else "no",
        "Tensors": str(tensors or ""),
        "Experts": str(experts or ""),
    }
    print_facts(facts)
    return 0
