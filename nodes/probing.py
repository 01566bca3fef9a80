"""Recovery probes: a one-token inference, by the worker, of a model that is excluded on a node that is online."""

from __future__ import annotations

import io
import logging
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from nodes.background import background
from nodes.client import CallFailed, Reply, Target, call
from nodes.exclusions import lift_exclusions
from nodes.models import NodeModel, NodeStatus

log = logging.getLogger("llmlb.nodes")

# How much longer than the probe may take its claim lasts, so that no second one starts beside it.
LEASE_SLACK_SECONDS: Final = 10


def silence(*, seconds: float) -> bytes:
    """So much of a WAV file in which nothing is heard: 16 bits, 16 kHz, mono."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(round(seconds * 16_000) * 2))
    return file.getvalue()


@dataclass(frozen=True, slots=True)
class Smallest:
    """The smallest request of one kind, and the member of its answer that holds the results.

    `results` None: the answer is sound. `sound`: the request is a form with this in it.
    """

    path: str
    body: Mapping[str, Any]
    results: str | None
    sound: bytes = b""


CHAT: Final = Smallest(
    "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}, "choices"
)
RESPONSES: Final = Smallest("/v1/responses", {"input": "hi", "max_output_tokens": 1}, "output")
SMALLEST: Final[Mapping[str, Smallest]] = {
    "completion": Smallest("/v1/completions", {"prompt": "hi", "max_tokens": 1}, "choices"),
    "embedding": Smallest("/v1/embeddings", {"input": "hi"}, "data"),
    "rerank": Smallest("/v1/rerank", {"query": "hi", "documents": ["hi"]}, "results"),
    "responses": RESPONSES,
    "speech": Smallest("/v1/audio/speech", {"input": "hi", "voice": "alloy"}, None),
    "transcription": Smallest("/v1/audio/transcriptions", {}, "text", silence(seconds=0.5)),
    "translation": Smallest("/v1/audio/translations", {}, "text", silence(seconds=0.5)),
}


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe of one exclusion. `excluded_at` tells it from a later exclusion of the same model."""

    pk: int
    node_name: str
    target: Target
    model_id: str
    kind: str
    excluded_at: datetime
    timeout: float


def probe_excluded() -> int:
    """Start the recovery probes that are due, at most one a node, and return at once. Returns: how many."""
    probes = claim_due_probes(timezone.now())
    for probe in probes:
        background().submit(_probe, probe)
    return len(probes)


def claim_due_probes(now: datetime) -> list[Probe]:
    """The probes that are due and that no other worker has taken."""
    if settings.LLMLB.exclusion_probe_max <= 0:
        return []
    due = NodeModel.objects.filter(
        excluded_at__isnull=False, next_probe_at__lte=now, node__enabled=True, node__status=NodeStatus.ONLINE
    )
    if not due.exists():  # nearly always, and half the price of the rows
        return []
    first_of_node = {row.node_id: row for row in due.select_related("node").order_by("-next_probe_at")}
    return [_as_probe(row) for row in first_of_node.values() if _claim(row, now)]


def _claim(row: NodeModel, now: datetime) -> bool:
    lease = row.node.effective_inference_timeout + LEASE_SLACK_SECONDS
    mine = NodeModel.objects.filter(pk=row.pk, next_probe_at=row.next_probe_at)
    return mine.update(next_probe_at=now + timedelta(seconds=lease)) == 1


def _as_probe(row: NodeModel) -> Probe:
    node = row.node
    assert row.excluded_at is not None
    return Probe(
        pk=row.pk,
        node_name=node.name,
        target=Target(node.base_url, node.api_key),
        model_id=row.model_id,
        kind=_kind_of(row),
        excluded_at=row.excluded_at,
        timeout=node.effective_inference_timeout,
    )


def _kind_of(row: NodeModel) -> str:
    """What failed. A response of a node that does not serve that API itself was a chat."""
    translated = row.excluded_kind == "responses" and RESPONSES.path not in row.node.native_apis
    return "chat" if translated else row.excluded_kind


async def _probe(probe: Probe) -> None:
    smallest = SMALLEST.get(probe.kind, CHAT)
    body = {"model": probe.model_id, **smallest.body}
    file = ("file", "silence.wav", smallest.sound) if smallest.sound else None
    try:
        reply = await call(probe.target, smallest.path, timeout=probe.timeout, body=body, file=file)
        failure = "" if is_promised(probe.kind, reply) else f"answered {reply.status} without a result"
    except CallFailed as error:
        failure = str(error)
    await background().write(record_probe, probe, failure)


def is_promised(kind: str, reply: Reply) -> bool:
    """Whether the answer is what the API promises."""
    results = SMALLEST.get(kind, CHAT).results
    if results is None:
        page = reply.headers.get("content-type", "").startswith(("text/html", "application/json"))
        return reply.status == 200 and bool(reply.body) and not page
    found = reply.document.get(results) if isinstance(reply.document, dict) else None
    return isinstance(found, str) or (isinstance(found, list) and bool(found))


def record_probe(probe: Probe, failure: str) -> None:
    """Put the model back in, or set when to try again: after 1, 2, 4 … LLMLB_EXCLUSION_PROBE_SECS seconds."""
    same = NodeModel.objects.filter(pk=probe.pk, excluded_at=probe.excluded_at)
    if not failure:
        lift_exclusions(same, reason="a recovery probe succeeded")
        return
    with transaction.atomic():
        row = same.select_for_update().first()
        if row is None:
            return
        row.probe_failures += 1
        row.next_probe_at = timezone.now() + timedelta(seconds=next_delay(row.probe_failures))
        row.save(update_fields=["probe_failures", "next_probe_at"])
    log.info("recovery probe failed: node=%s model=%s reason=%s", probe.node_name, probe.model_id, failure)


def next_delay(failures: int) -> float:
    """Seconds until the next probe after so many failed ones."""
    return float(min(2 ** min(failures - 1, 20), settings.LLMLB.exclusion_probe_max))
