"""`/api/nodes`, and the same under the name `/api/endpoints`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.db.models import Q, QuerySet
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from access.audit import Actor
from access.callers import actor_of
from access.permissions import Permission
from access.rules import ApiRules
from llmlb_site.lib.events import settle
from nodes import queries, services
from nodes.api import serializers
from nodes.models import Node
from nodes.refusals import UnknownNode

READ: Final = Permission.ENDPOINTS_READ
MANAGE: Final = Permission.ENDPOINTS_MANAGE


class ListSchema(AutoSchema):
    """Names the operation that gives a list as one, though the list stands in an object."""

    def get_operation_id(self) -> str:
        return super().get_operation_id().replace("_retrieve", "_list")


class SettledView(APIView):
    """What it shows has the consequences of every request that this process has answered."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        settle()


class Nodes(SettledView):
    rules: Final[ApiRules] = {"GET": READ, "POST": MANAGE}
    schema = ListSchema()

    @extend_schema(parameters=[serializers.NodeQuery], responses=serializers.NodeList)
    def get(self, request: Request) -> Response:
        """All nodes, by name, with what each can execute and what is excluded."""
        wanted = _valid(serializers.NodeQuery, request.query_params)
        nodes = serializers.NodeAnswer(_filtered(queries.nodes_with_models(), **wanted), many=True).data
        return Response({"endpoints": nodes, "nodes": nodes, "total": len(nodes)})

    @extend_schema(request=serializers.NodeRegistration, responses={201: serializers.NodeDetail})
    def post(self, request: Request) -> Response:
        """Register a node: its models are read and its engine detected first, and nothing is stored if that fails."""
        given = _valid(serializers.NodeRegistration, request.data)
        node = services.register_node(**given, actor=actor_of(request))
        return Response(_detail(node.pk), status=201)


class NodeView(SettledView):
    rules: Final[ApiRules] = {"GET": READ, "PUT": MANAGE, "PATCH": MANAGE, "DELETE": MANAGE}

    @extend_schema(responses=serializers.NodeDetail)
    def get(self, request: Request, pk: int) -> Response:
        """One node with its models."""
        return Response(_detail(pk))

    @extend_schema(request=serializers.NodeChange, responses=serializers.NodeDetail)
    def put(self, request: Request, pk: int) -> Response:
        """Change what is given; the rest stays. The base URL cannot be changed."""
        return self._change(request, pk)

    @extend_schema(request=serializers.NodeChange, responses=serializers.NodeDetail)
    def patch(self, request: Request, pk: int) -> Response:
        """Change what is given; the rest stays. The base URL cannot be changed."""
        return self._change(request, pk)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """Remove a node. Its history and totals stay."""
        services.delete_node(node_id=pk, actor=actor_of(request))
        return Response(status=204)

    def _change(self, request: Request, pk: int) -> Response:
        services.update_node(node_id=pk, changes=_valid(serializers.NodeChange, request.data), actor=actor_of(request))
        return Response(_detail(pk))


class NodeModels(SettledView):
    rules: Final[ApiRules] = {"GET": READ, "PATCH": MANAGE}
    schema = ListSchema()

    @extend_schema(responses=serializers.NodeModelList)
    def get(self, request: Request, pk: int) -> Response:
        """What a node listed when it last answered, and which of it is excluded from routing."""
        rows = queries.get_node(pk).models.order_by("model_id")
        models = serializers.NodeModelAnswer(rows, many=True).data
        return Response({"models": models, "total": len(models)})

    @extend_schema(request=serializers.NodeModelChange, responses=serializers.NodeModelAnswer)
    def patch(self, request: Request, pk: int) -> Response:
        """Say what one of its models can do, whatever the node or the model's name says."""
        given = _valid(serializers.NodeModelChange, request.data)
        row = services.set_capabilities(
            node_id=pk, model_id=given["model"], capabilities=given["capabilities"], actor=actor_of(request)
        )
        return Response(serializers.NodeModelAnswer(row).data)


class TestNode(APIView):
    __test__ = False  # no test case, whatever its name begins with

    rules: Final[ApiRules] = {"POST": MANAGE}

    @extend_schema(request=None, responses=serializers.TestAnswer)
    def post(self, request: Request, pk: int) -> Response:
        """Check a node now. The answer is 200 also when the node's is not; its status follows what was seen."""
        report = services.test_node(node_id=pk)
        info = {"version": report.version, "model_count": len(report.models)}
        found = {"models_found": list(report.models), "endpoint_info": info}
        error = report.error or None
        return Response({"success": report.success, "latency_ms": report.latency_ms, "error": error, **found})


class SyncNode(APIView):
    rules: Final[ApiRules] = {"POST": MANAGE}

    @extend_schema(request=None, responses=serializers.SyncAnswer)
    def post(self, request: Request, pk: int) -> Response:
        """Read a node's model list now. If that fails, the old list stays."""
        report = services.sync_node(node_id=pk, actor=actor_of(request))
        changes = report.changes
        counts = {"added": len(changes.added), "removed": len(changes.removed), "updated": len(changes.updated)}
        return Response({"synced_models": list(report.models), **counts})


class Reinclude(APIView):
    rules: Final[ApiRules] = {"POST": MANAGE}

    @extend_schema(request=serializers.ReincludeRequest, responses=serializers.ReincludeAnswer)
    def post(self, request: Request, pk: int) -> Response:
        """Put an excluded model of a node back into routing, or all of them."""
        model = _valid(serializers.ReincludeRequest, request.data).get("model")
        count = services.reinclude_model(node_id=pk, model_id=model, actor=actor_of(request))
        return Response({"reincluded": count})


class NodeAction(APIView):
    """One verb on one node, whose answer is the node."""

    rules: Final[ApiRules] = {"POST": MANAGE}
    service: Callable[..., Node]

    def _act(self, request: Request, pk: int) -> Response:
        actor: Actor = actor_of(request)
        type(self).service(node_id=pk, actor=actor)
        return Response(_detail(pk))


class Reregister(NodeAction):
    service = staticmethod(services.reregister_node)

    @extend_schema(request=None, responses=serializers.NodeDetail)
    def post(self, request: Request, pk: int) -> Response:
        """Read everything of a node anew; every exclusion on it is cleared."""
        return self._act(request, pk)


class Drain(NodeAction):
    service = staticmethod(services.drain_node)

    @extend_schema(request=None, responses=serializers.NodeDetail)
    def post(self, request: Request, pk: int) -> Response:
        """Give a node no new requests. Those that run go on."""
        return self._act(request, pk)


class Resume(NodeAction):
    service = staticmethod(services.resume_node)

    @extend_schema(request=None, responses=serializers.NodeDetail)
    def post(self, request: Request, pk: int) -> Response:
        """End the draining of a node."""
        return self._act(request, pk)


def _valid(serializer: type[Serializer[Any]], data: Any) -> dict[str, Any]:
    """What the serializer knows of `data`. Raises: DRF's ValidationError."""
    form = serializer(data=data)
    form.is_valid(raise_exception=True)
    return dict(form.validated_data)


def _detail(pk: int) -> Any:
    node = queries.nodes_with_models().filter(pk=pk).first()
    if node is None:
        raise UnknownNode
    return serializers.NodeDetail(node).data


def _filtered(
    nodes: QuerySet[Node], *, status: str = "", type: str = "", tag: str = "", model: str = "", search: str = ""
) -> QuerySet[Node]:
    if status:
        nodes = nodes.filter(status=status)
    if type:
        nodes = nodes.filter(node_type=type)
    if tag:
        nodes = nodes.filter(pk__in=queries.nodes_with_tag(tag))
    if model:
        nodes = nodes.filter(models__model_id=model)
    if search:
        parts = Q(name__icontains=search) | Q(base_url__icontains=search) | Q(notes__icontains=search)
        nodes = nodes.filter(parts)
    return nodes
