"""Changing, draining, switching off and deleting a node."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from access import audit
from access.audit import Actor
from access.refusals import Invalid
from llmlb_site.lib.events import publish
from llmlb_site.lib.node_addresses import BadBaseUrl, normalise_base_url
from nodes.capabilities import ALL
from nodes.fields import check_fields
from nodes.models import Node, NodeModel, TypeSource
from nodes.refusals import UnknownModel, UnknownNode
from nodes.soon import enqueue

log = logging.getLogger("llmlb.nodes")

# A check that began this lately is not repeated: fifty requests that fail at once ask for one check, not for fifty.
JUST_CHECKED: Final = timedelta(seconds=0.5)
# Changes after which the stored state may no longer be true.
_LOOK_AGAIN: Final = frozenset({"api_key", "enabled", "health_check_interval"})


def update_node(*, node_id: int, changes: Mapping[str, Any], actor: Actor) -> Node:
    """Change fields of a node (`nodes.fields.EDITABLE`, and `node_type`: None lets it be detected again).

    `api_key` None removes the key. `base_url` cannot be changed: another address is another node.

    Raises:
        UnknownNode, ValidationError; Invalid (code `base_url_immutable`).
    """
    values = dict(changes)
    with transaction.atomic():
        node = _locked(node_id)
        _refuse_other_url(node, values.pop("base_url", node.base_url))
        type_fields = _set_type(node, values.pop("node_type")) if "node_type" in values else []
        check_fields(node, values)
        node.save(update_fields=[*values, *type_fields])
        # Names of fields alone: the values may hold a key.
        audit.record("node.update", actor=actor, target=node.name, details={"fields": sorted(changes)})
        publish("nodes", {"node": node_id})
        if _LOOK_AGAIN & values.keys() or type_fields:
            check_node_soon(node_id=node_id)
    return node


def set_node_type(*, node_id: int, node_type: str | None, actor: Actor) -> Node:
    """Choose a node's engine; the choice sticks. None: detect it again. Raises: UnknownNode, ValidationError."""
    return update_node(node_id=node_id, changes={"node_type": node_type}, actor=actor)


def forget_api(*, node_id: int, path: str) -> None:
    """A request has shown that a node does not serve this path itself. Nothing happens if that is known."""
    with transaction.atomic():
        node = Node.objects.select_for_update().filter(pk=node_id).first()
        if node is None or path not in node.native_apis:
            return
        node.native_apis = [known for known in node.native_apis if known != path]
        node.save(update_fields=["native_apis"])
        publish("nodes", {"node": node_id})
    log.warning("node=%s does not serve %s itself; it is translated from now on", node.name, path)


def set_capabilities(*, node_id: int, model_id: str, capabilities: Sequence[str], actor: Actor) -> NodeModel:
    """Say what a model on a node can do, whatever the node or the name says. Empty: as they say.

    Raises:
        UnknownNode, UnknownModel; Invalid: there is no such capability.
    """
    if unknown := sorted(set(capabilities) - ALL):
        raise Invalid(_("There is no such capability: %s.") % ", ".join(unknown), field="capabilities")
    with transaction.atomic():
        node = _locked(node_id)
        row = NodeModel.objects.filter(node=node, model_id=model_id).first()
        if row is None:
            raise UnknownModel
        row.capabilities = sorted(set(capabilities))
        row.save(update_fields=["capabilities"])
        details = {"model": model_id, "capabilities": row.capabilities}
        audit.record("node.set_capabilities", actor=actor, target=node.name, details=details)
        publish("models", {"node": node_id})
    return row


def delete_node(*, node_id: int, actor: Actor) -> None:
    """Remove a node with its models and checks. History and totals stay. Raises: UnknownNode."""
    with transaction.atomic():
        node = _locked(node_id)
        audit.record("node.delete", actor=actor, target=node.name)
        node.delete()
        publish("nodes", {"node": node_id})
        publish("models", {"node": node_id})


def drain_node(*, node_id: int, actor: Actor) -> Node:
    """Give a node no new requests; those that run go on. Raises: UnknownNode."""
    return _switch(node_id, "draining", True, "node.drain", actor)


def resume_node(*, node_id: int, actor: Actor) -> Node:
    """End the draining of a node. Raises: UnknownNode."""
    return _switch(node_id, "draining", False, "node.resume", actor)


def disable_node(*, node_id: int, actor: Actor) -> Node:
    """Neither route to a node nor check it. Raises: UnknownNode."""
    return _switch(node_id, "enabled", False, "node.disable", actor)


def enable_node(*, node_id: int, actor: Actor) -> Node:
    """Check a node again, now, and route to it when it answers. Raises: UnknownNode."""
    return _switch(node_id, "enabled", True, "node.enable", actor)


def check_node_soon(*, node_id: int) -> bool:
    """Have a node checked at once rather than at its time. Returns: whether that was not under way anyway."""
    now = timezone.now()
    node = Node.objects.filter(pk=node_id, enabled=True).first()
    if node is None:
        return False
    later = Node.objects.filter(pk=node_id, next_poll_at__gt=now, next_poll_at__lte=_before(now, node))
    moved = later.update(next_poll_at=now) == 1
    if moved:
        enqueue("nodes.poll_due")
    return moved


def _before(now: datetime, node: Node) -> datetime:
    """The latest due time of a node whose check did not begin just now."""
    return now + node.poll_pause() - min(JUST_CHECKED, node.poll_pause() / 2)


def _locked(node_id: int) -> Node:
    node = Node.objects.select_for_update().filter(pk=node_id).first()
    if node is None:
        raise UnknownNode
    return node


def _switch(node_id: int, field: str, value: bool, action: str, actor: Actor) -> Node:
    with transaction.atomic():
        node = _locked(node_id)
        if getattr(node, field) == value:
            return node
        setattr(node, field, value)
        node.save(update_fields=[field])
        audit.record(action, actor=actor, target=node.name)
        publish("nodes", {"node": node_id})
        if value and field == "enabled":
            check_node_soon(node_id=node_id)
    return node


def _refuse_other_url(node: Node, text: Any) -> None:
    try:
        same = normalise_base_url(str(text)) == node.base_url
    except BadBaseUrl:
        same = False
    if not same:
        message = _("The base URL of a node cannot be changed: register the new address and delete this node.")
        raise Invalid(message, code="base_url_immutable", field="base_url")


def _set_type(node: Node, node_type: str | None) -> Iterable[str]:
    if node_type is None:
        node.node_type_source = TypeSource.AUTO
        node.node_type_detected_at = None  # the next good check looks at it anew
        return ["node_type_source", "node_type_detected_at"]
    node.node_type, node.node_type_source, node.node_type_reason = node_type, TypeSource.MANUAL, ""
    return ["node_type", "node_type_source", "node_type_reason"]
