"""What can be done to a node from its page: one POST each, and a message that says what happened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from access.audit import Actor
from access.callers import actor_of
from access.permissions import Role
from access.refusals import Refusal
from access.rules import page
from nodes import services
from nodes.models import Node
from nodes.refusals import NodeOffline

Action = Callable[[Node, Actor, Mapping[str, str]], str]


@page(Role.OPERATOR)
@require_POST
def node_action(request: HttpRequest, pk: int, action: str) -> HttpResponse:
    act = ACTIONS.get(action)
    if act is None:
        raise Http404
    node = get_object_or_404(Node, pk=pk)
    try:
        messages.success(request, act(node, actor_of(request), request.POST))
    except Refusal as refusal:
        messages.error(request, str(refusal))
    return _back(request, node)


def _back(request: HttpRequest, node: Node) -> HttpResponseRedirect:
    """To the page that the button was on, if that is one of ours."""
    target = request.POST.get("next", "")
    if url_has_allowed_host_and_scheme(target, allowed_hosts=None):
        return HttpResponseRedirect(target)
    return redirect("node", node.pk)


def _sync(node: Node, actor: Actor, values: Mapping[str, str]) -> str:
    report = services.sync_node(node_id=node.pk, actor=actor)
    number = len(report.models)
    text = ngettext(
        "%(node)s lists %(number)s model: %(added)s new, %(removed)s gone.",
        "%(node)s lists %(number)s models: %(added)s new, %(removed)s gone.",
        number,
    )
    added, removed = len(report.changes.added), len(report.changes.removed)
    return text % {"node": node.name, "number": number, "added": added, "removed": removed}


def _test(node: Node, actor: Actor, values: Mapping[str, str]) -> str:
    report = services.test_node(node_id=node.pk)
    if not report.success:
        raise NodeOffline(_("%(node)s failed the test: %(error)s.") % {"node": node.name, "error": report.error})
    text = ngettext(
        "%(node)s answered in %(latency)s ms with %(number)s model.",
        "%(node)s answered in %(latency)s ms with %(number)s models.",
        len(report.models),
    )
    return text % {"node": node.name, "latency": report.latency_ms, "number": len(report.models)}


def _drain(node: Node, actor: Actor, values: Mapping[str, str]) -> str:
    services.drain_node(node_id=node.pk, actor=actor)
    return _("%s takes no new requests. Those that run on it go on.") % node.name


def _resume(node: Node, actor: Actor, values: Mapping[str, str]) -> str:
    services.resume_node(node_id=node.pk, actor=actor)
    return _("%s takes requests again.") % node.name


def _enable(node: Node, actor: Actor, values: Mapping[str, str]) -> str:
    services.enable_node(node_id=node.pk, actor=actor)
    return _("%s is enabled, and checked now.") % node.name


def _disable(node: Node, actor: Actor, values: Mapping[str, str]) -> str:
    services.disable_node(node_id=node.pk, actor=actor)
    return _("%s is disabled: neither checked nor routed to.") % node.name


def _reregister(node: Node, actor: Actor, values: Mapping[str, str]) -> str:
    services.reregister_node(node_id=node.pk, actor=actor)
    return _("%s was asked for everything anew; nothing on it is excluded now.") % node.name


def _reinclude(node: Node, actor: Actor, values: Mapping[str, str]) -> str:
    number = services.reinclude_model(node_id=node.pk, model_id=values.get("model") or None, actor=actor)
    if not number:
        return _("Nothing was excluded there any more.")
    text = ngettext(
        "%(number)s model is back in routing on %(node)s.", "%(number)s models are back in routing on %(node)s.", number
    )
    return text % {"number": number, "node": node.name}


ACTIONS: Final[Mapping[str, Action]] = {
    "sync": _sync,
    "test": _test,
    "drain": _drain,
    "resume": _resume,
    "enable": _enable,
    "disable": _disable,
    "reregister": _reregister,
    "reinclude": _reinclude,
}
