"""Events between the processes of the scaled profile, over Redis pub/sub. A hint: the revision is the truth."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from typing import Any, Final

import redis

from llmlb_site.lib.events import Payload, deliver, set_relay

log = logging.getLogger("llmlb.events")
CHANNEL: Final = "llmlb:events"
SEND_SECONDS: Final = 0.5
# After an event that could not be sent, no more are tried for so long.
MUTE_SECONDS: Final = 2.0


class RedisRelay:
    """Publishes this process's events (`send`) and, between `start` and `stop`, delivers those of the others."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=2, health_check_interval=15)
        # Whoever publishes has something else to do than to wait for Redis.
        self._sender = redis.Redis.from_url(url, socket_timeout=SEND_SECONDS, socket_connect_timeout=SEND_SECONDS)
        self._mute_until = 0.0
        self._origin = uuid.uuid4().hex
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="llmlb-events", daemon=True)

    def start(self) -> None:
        set_relay(self.send)
        self._thread.start()

    def stop(self) -> None:
        set_relay(None)
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._client.close()
        self._sender.close()

    def send(self, topic: str, payload: Payload) -> None:
        if time.monotonic() < self._mute_until:
            return
        try:
            self._sender.publish(CHANNEL, json.dumps([self._origin, topic, dict(payload)]))
        except redis.RedisError as error:
            self._mute_until = time.monotonic() + MUTE_SECONDS
            log.warning("event not relayed, others will see the revision: %s", type(error).__name__)

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                self._receive()
            except redis.RedisError as error:
                log.warning("event relay lost its connection: %s", type(error).__name__)
                time.sleep(1)

    def _receive(self) -> None:
        pubsub: Any = self._client.pubsub  # untyped in redis-py
        with pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(CHANNEL)
            while not self._stopping.is_set():
                message = channel.get_message(timeout=1.0)
                if message is None:
                    continue
                origin, topic, payload = json.loads(message["data"])
                if origin != self._origin:
                    deliver(topic, payload, from_elsewhere=True)
