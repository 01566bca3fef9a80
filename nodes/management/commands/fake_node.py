"""`manage.py fake_node`: an inference server that misbehaves on demand, to try failover by hand."""

from __future__ import annotations

import asyncio
import os
import signal
from argparse import ArgumentParser
from typing import Any

import uvloop
from django.core.management.base import BaseCommand, CommandError

from nodes.fake_node import KINDS, MODES, Behaviour, FakeNode


class Command(BaseCommand):
    help = "Runs a fake inference node. Change how it behaves with POST /_fake, see what it got with GET /_fake."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        defaults = Behaviour()
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=0, help="0: any free one.")
        parser.add_argument("--name", default="fake")
        parser.add_argument("--models", default="model-a", help="Ids, separated by commas.")
        parser.add_argument("--kind", default="openai_compatible", choices=sorted(KINDS))
        parser.add_argument("--api-key", default=None)
        parser.add_argument("--mode", default=defaults.mode, choices=MODES)
        parser.add_argument("--status", type=int, default=defaults.status, help="Of the answers to inference.")
        parser.add_argument("--latency", type=float, default=defaults.latency, help="Seconds before an answer.")
        parser.add_argument("--chunks", type=int, default=defaults.chunks, help="Tokens of an answer.")
        parser.add_argument("--chunk-interval", type=float, default=0.02, help="Seconds between tokens.")
        parser.add_argument("--only-models", default="", help="Misbehave for these models alone.")
        parser.add_argument("--times", type=int, default=None, help="Misbehave for the first so many requests.")

    def handle(self, *args: Any, **options: Any) -> None:
        behaviour = Behaviour(
            mode=options["mode"],
            status=options["status"],
            latency=options["latency"],
            chunks=options["chunks"],
            chunk_interval=options["chunk_interval"],
            only_models=_ids(options["only_models"]),
            times=options["times"],
        )
        node = FakeNode(
            _ids(options["models"]),
            kind=options["kind"],
            api_key=options["api_key"],
            behaviour=behaviour,
            name=options["name"],
        )
        uvloop.run(self._serve(node, options["host"], options["port"]))

    async def _serve(self, node: FakeNode, host: str, port: int) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            await node.start(host, port)
        except OSError as error:
            raise CommandError(f"Cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}.") from error
        self.stdout.write(f"{node.url} lists {', '.join(node.models) or 'nothing'}; Ctrl-C ends it.")
        self.stdout.flush()
        await stop.wait()
        await node.stop()


def _ids(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
