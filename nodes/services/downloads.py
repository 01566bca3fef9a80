"""Having a node fetch a model, stop fetching it, or delete it (SPEC-8ae67d67, SPEC-e8e9326e)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict
from typing import Final

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from access import audit
from access.audit import Actor
from access.refusals import Invalid
from llmlb_site.lib.events import publish
from nodes.client import CallFailed, Target
from nodes.downloads.engines import FETCHERS, Fetcher, NotThere, Refused, Wanted
from nodes.models import Download, DownloadState, Node, NodeModel
from nodes.queries import get_node
from nodes.refusals import CannotFetch, NodeRefused, NodeUnreachable, UnknownDownload, UnknownModel
from nodes.services.lifecycle import check_node_soon
from nodes.soon import enqueue

NAME_LENGTH: Final = 300


def start_download(
    *, node_id: int, actor: Actor, model: str = "", hf_repo: str = "", quantization: str = "", filename: str = ""
) -> Download:
    """Have a node fetch a model; where it is doing so already, that download. A worker sees to it from here.

    Args:
        model: in the node's own words, such as `llama3.2:3b` for Ollama or `org/repository` for llmlb's own node.
        hf_repo: a repository of Hugging Face; then `model` is not needed.

    Raises:
        UnknownNode; Invalid (nothing that could be fetched is named); CannotFetch.
    """
    node = get_node(node_id)
    _fetcher_of(node)
    wanted = Wanted(*(text.strip() for text in (model, hf_repo, quantization, filename)))
    if not (wanted.model or wanted.hf_repo):
        raise Invalid(_("Say which model."), field="model")
    if len(wanted.name) > NAME_LENGTH or not wanted.name.isprintable():
        raise Invalid(_("This is not the name of a model."), field="model")
    try:
        with transaction.atomic():
            row = Download.objects.create(
                node=node, model=wanted.name, options=asdict(wanted), requested_by=actor.label[:200]
            )
            audit.record("node.download", actor=actor, target=node.name, details={"model": wanted.name})
            publish("downloads", {"node": node_id})
            enqueue("nodes.follow_downloads")
    except IntegrityError:  # it is under way, or was a moment ago
        return Download.objects.filter(node=node, model=wanted.name).latest("id")
    return row


def cancel_download(*, node_id: int, download_id: int, actor: Actor) -> Download:
    """Stop a download. What the node has fetched stays with it. Nothing happens to one that is over.

    Raises:
        UnknownDownload
    """
    with transaction.atomic():
        row = Download.objects.select_for_update().filter(pk=download_id, node_id=node_id).first()
        if row is None:
            raise UnknownDownload
        if not row.is_unfinished:
            return row
        row.state, row.finished_at, row.bytes_per_second = DownloadState.CANCELLED, timezone.now(), 0.0
        row.save(update_fields=["state", "finished_at", "bytes_per_second"])
        audit.record("node.cancel_download", actor=actor, target=row.node.name, details={"model": row.model})
        publish("downloads", {"node": node_id})
    # Who follows it sees the row within seconds and tells the node; this is for when nobody does.
    with suppress(CallFailed, CannotFetch):
        asyncio.run(_fetcher_of(row.node).cancel(_target(row.node), row.remote_id))
    return row


def delete_model(*, node_id: int, model_id: str, actor: Actor) -> None:
    """Have a node delete a model that it lists. It is out of routing at once.

    Raises:
        UnknownNode, UnknownModel, CannotFetch; NodeUnreachable; NodeRefused, with the node's words.
    """
    node = get_node(node_id)
    fetcher = _fetcher_of(node)
    if not fetcher.can_delete:
        raise CannotFetch(_("A node of this type deletes no models for others."))
    refused = any(entry.get("model") == model_id for entry in node.refused_models)
    if not refused and not NodeModel.objects.filter(node=node, model_id=model_id).exists():
        raise UnknownModel
    try:
        asyncio.run(fetcher.delete(_target(node), model_id))
    except NotThere:
        pass  # which is what was wanted
    except CallFailed as error:
        raise NodeUnreachable(_("The node %(reason)s.") % {"reason": error}) from error
    except Refused as error:
        raise NodeRefused(_("The node did not delete it: %(reason)s.") % {"reason": error}) from error
    _forget(node, model_id, actor)


def _forget(node: Node, model_id: str, actor: Actor) -> None:
    with transaction.atomic():
        node = Node.objects.select_for_update().get(pk=node.pk)
        NodeModel.objects.filter(node=node, model_id=model_id).delete()
        node.refused_models = [entry for entry in node.refused_models if entry.get("model") != model_id]
        node.save(update_fields=["refused_models"])
        audit.record("node.delete_model", actor=actor, target=node.name, details={"model": model_id})
        publish("models", {"node": node.pk})
        check_node_soon(node_id=node.pk)


def _fetcher_of(node: Node) -> Fetcher:
    fetcher = FETCHERS.get(node.node_type)
    if fetcher is None:
        types = ", ".join(str(Node(node_type=name).get_node_type_display()) for name in FETCHERS)
        raise CannotFetch(_("A node of this type fetches no models for others; these do: %s.") % types)
    return fetcher


def _target(node: Node) -> Target:
    return Target(node.base_url, node.api_key)
