"""Registering a node: everything is asked of it first, and only then stored, or nothing is."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from access import audit
from access.audit import Actor
from access.refusals import Conflict, Invalid, Refusal
from llmlb_site.lib.events import publish, settle
from llmlb_site.lib.node_addresses import AddressRefused, BadBaseUrl, check_resolved, normalise_base_url
from nodes.applying import apply_abilities, apply_facts, apply_refused, apply_type, replace_models
from nodes.checking import Look, look_at
from nodes.client import CallFailed, Target
from nodes.exclusions import lift_exclusions
from nodes.fields import check_fields, clean_name
from nodes.listing import NotAModelList
from nodes.models import Node, NodeModel, NodeStatus, TypeSource
from nodes.queries import get_node
from nodes.refusals import ModelListUnavailable, NodeUnreachable, NoExecutableModels

log = logging.getLogger("llmlb.nodes")


def register_node(
    *,
    name: str,
    base_url: str,
    actor: Actor,
    node_type: str | None = None,
    allow_unreachable: bool = False,
    **fields: Any,
) -> Node:
    """Register a node with the models that it lists now.

    Args:
        node_type: a person's choice, which sticks; None to detect it.
        allow_unreachable: keep a node that does not answer (or not with a model list) as `pending`.
        fields: other fields of `Node` that a person may set (`nodes.fields.EDITABLE`).

    Raises:
        ValidationError: a field has a value that it may not have; the name is taken.
        Invalid: the base URL is none, or leads where no node may be (code `address_refused`).
        Conflict: there is a node with this base URL.
        NodeUnreachable, ModelListUnavailable, NoExecutableModels: nothing was stored; the log says why.
    """
    node = Node(name=clean_name(name), base_url=allowed_url(base_url))
    if node_type is not None:
        node.node_type, node.node_type_source = node_type, TypeSource.MANUAL
    check_fields(node, fields)
    try:
        look = _look(node)
    except (NodeUnreachable, ModelListUnavailable, NoExecutableModels) as refusal:
        if isinstance(refusal, NoExecutableModels) or not allow_unreachable:
            log.error("registration refused: node=%s code=%s reason=%s", node.name, refusal.code, refusal)
            raise
        node.last_error = str(refusal)[:300]
        look = None
    return _store(node, look, actor)


def reregister_node(*, node_id: int, actor: Actor) -> Node:
    """Ask a node for everything anew: its list replaces the stored one and every exclusion is cleared.

    Raises:
        UnknownNode, and as `register_node`; then nothing has changed.
    """
    node = get_node(node_id)
    look = _look(node)
    settle()
    with transaction.atomic():
        node = Node.objects.select_for_update().get(pk=node_id)
        _apply(node, look)
        node.save()
        replace_models(node, look.listing.models)
        apply_abilities(node, look.detection)
        lift_exclusions(NodeModel.objects.filter(node=node), reason="re-registered")
        audit.record("node.reregister", actor=actor, target=node.name)
        _publish(node)
    return node


def allowed_url(text: str) -> str:
    """The base URL in its one spelling. Raises: Invalid, Conflict."""
    try:
        base_url = normalise_base_url(text)
    except AddressRefused as error:
        raise Invalid(str(error), code="address_refused", field="base_url") from error
    except BadBaseUrl as error:
        raise Invalid(str(error), field="base_url") from error
    if Node.objects.filter(base_url=base_url).exists():
        raise _url_taken()
    try:
        check_resolved(base_url)
    except AddressRefused as error:
        raise Invalid(str(error), code="address_refused", field="base_url") from error
    return base_url


def _url_taken() -> Conflict:
    return Conflict(_("There is a node with this base URL already."), field="base_url")


def _look(node: Node) -> Look:
    """Raises: NodeUnreachable, ModelListUnavailable, NoExecutableModels."""
    target = Target(node.base_url, node.api_key)
    try:
        look = asyncio.run(look_at(target, timeout=settings.LLMLB.probe_timeout))
    except CallFailed as error:
        raise NodeUnreachable(_("The node %(reason)s.") % {"reason": error}) from error
    except NotAModelList as error:
        raise ModelListUnavailable(_("The node gave no model list: %(reason)s.") % {"reason": error}) from error
    if not look.listing.models:
        raise NoExecutableModels
    log.debug("node=%s lists %s", node.name, ", ".join(model.id for model in look.listing.models))
    return look


def _store(node: Node, look: Look | None, actor: Actor) -> Node:
    if look is not None:
        _apply(node, look)
        node.next_poll_at = timezone.now() + node.poll_pause()
    try:
        with transaction.atomic():
            node.save(force_insert=True)
            if look is not None:
                replace_models(node, look.listing.models)
                apply_abilities(node, look.detection)
            audit.record("node.register", actor=actor, target=node.name, details={"status": node.status})
            _publish(node)
    except IntegrityError as error:
        raise _who_was_first(node) from error
    log.info("registered: node=%s type=%s status=%s", node.name, node.node_type, node.status)
    return node


def _who_was_first(node: Node) -> Refusal:
    """Two registrations at once: the constraint has decided, and this one is the second."""
    if Node.objects.filter(base_url=node.base_url).exists():
        return _url_taken()
    return Invalid(_("There is a node with this name already."), field="name")


def _apply(node: Node, look: Look) -> None:
    apply_type(node, look.detection)
    apply_facts(node, look.detection.facts, whole=True)
    apply_refused(node, look.detection)
    node.status = NodeStatus.ONLINE
    node.last_seen = timezone.now()
    node.latency_ms = look.listing.reply.latency_ms
    node.last_error = ""
    node.consecutive_failures = 0
    node.connect_failed = False


def _publish(node: Node) -> None:
    publish("nodes", {"node": node.pk})
    publish("models", {"node": node.pk})
