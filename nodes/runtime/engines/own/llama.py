"""llama.cpp's own HTTP server out of the xllamacpp package, with the options of `llama-server` that the node uses."""

from __future__ import annotations

import argparse
import os
import threading

from nodes.runtime.engines.own.orphan import end_with_parent


def main() -> None:
    options = _options()
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = options.model
    parameters.model_alias = {options.alias}
    parameters.hostnames = [options.host]
    parameters.port = options.port
    parameters.n_parallel = options.parallel
    parameters.n_gpu_layers = options.n_gpu_layers
    parameters.verbosity = 1  # errors and warnings; the tokens of every prompt are nobody's business
    parameters.cpuparams.n_threads = options.threads or os.cpu_count() or 1
    if options.ctx_size:
        parameters.n_ctx = options.ctx_size
    if options.mmproj:
        parameters.mmproj.path = options.mmproj
    if options.embeddings or options.reranking:
        parameters.embedding = True
    if options.reranking:
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    end_with_parent()
    server = xllamacpp.Server(parameters)
    print(f"llama.cpp serves {options.alias} at {server.listening_address}", flush=True)  # noqa: T201  # to the node's log
    threading.Event().wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--n-gpu-layers", type=int, default=0)
    parser.add_argument("--ctx-size", type=int, default=0)
    parser.add_argument("--mmproj", default="")
    parser.add_argument("--embeddings", action="store_true")
    parser.add_argument("--reranking", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
