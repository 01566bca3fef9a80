"""What a node is asked to fetch, delete and show: `/api/nodes/{id}/download`, `…/models/delete`, `…/logs`."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from access.callers import actor_of
from access.permissions import Permission
from access.rules import ApiRules
from nodes import queries, services
from nodes.models import Download, DownloadState
from nodes.services.logs import DEFAULT_LINES

READ: Final = Permission.ENDPOINTS_READ
MANAGE: Final = Permission.ENDPOINTS_MANAGE


class DownloadRequest(serializers.Serializer[Any]):
    """`model` in the node's own words (`llama3.2:3b`, `org/repository`), or `hf_repo`: a repository of Hugging Face."""

    model = serializers.CharField(required=False, allow_blank=True, max_length=300)
    hf_repo = serializers.CharField(required=False, allow_blank=True, max_length=200)
    quantization = serializers.CharField(required=False, allow_blank=True, max_length=64)
    filename = serializers.CharField(
        required=False, allow_blank=True, max_length=200, help_text="One file of the repository; llmlb's own node."
    )


class DownloadAnswer(serializers.ModelSerializer[Download]):
    """One download. Sizes are bytes, `progress` is 0 to 1; null where the node does not say how large the model is."""

    task_id = serializers.IntegerField(source="pk")
    status = serializers.ChoiceField(source="state", choices=DownloadState.choices)
    progress = serializers.FloatField(source="share", allow_null=True)
    speed = serializers.FloatField(source="bytes_per_second", help_text="Bytes per second, of late.")
    detail = serializers.CharField(help_text="What the node says that it does.")

    class Meta:
        model = Download
        fields = (
            "task_id",
            "model",
            "status",
            "progress",
            "downloaded_bytes",
            "total_bytes",
            "speed",
            "detail",
            "error",
            "requested_by",
            "created_at",
            "updated_at",
            "finished_at",
        )
        read_only_fields = fields


class DownloadList(serializers.Serializer[Any]):
    tasks = DownloadAnswer(many=True)


class DeleteRequest(serializers.Serializer[Any]):
    model = serializers.CharField(max_length=300, help_text="As the node lists it, exactly.")


class LogQuery(serializers.Serializer[Any]):
    tail = serializers.IntegerField(required=False, help_text="How many lines: 1 to 1000, 200 if not given.")
    limit = serializers.IntegerField(required=False, help_text="The same as tail.")


class LogAnswer(serializers.Serializer[Any]):
    """Lines, oldest first, with the fields that the node gives them: `timestamp`, `level`, `target`, `message`."""

    entries = serializers.ListField(child=serializers.DictField(child=serializers.CharField(allow_blank=True)))
    path = serializers.CharField(allow_blank=True)


class StartDownload(APIView):
    rules: Final[ApiRules] = {"POST": MANAGE}

    @extend_schema(request=DownloadRequest, responses={202: DownloadAnswer})
    def post(self, request: Request, pk: int) -> Response:
        """Have a node fetch a model: one of llmlb's own, Ollama or LM Studio. Asking twice is one download."""
        form = DownloadRequest(data=request.data)
        form.is_valid(raise_exception=True)
        row = services.start_download(node_id=pk, actor=actor_of(request), **form.validated_data)
        return Response(DownloadAnswer(row).data, status=202)


class DownloadProgress(APIView):
    rules: Final[ApiRules] = {"GET": READ}

    @extend_schema(responses=DownloadList)
    def get(self, request: Request, pk: int) -> Response:
        """The latest downloads of a node, newest first, with how far each is."""
        return Response({"tasks": DownloadAnswer(queries.downloads_of(pk), many=True).data})


class CancelDownload(APIView):
    rules: Final[ApiRules] = {"DELETE": MANAGE}

    @extend_schema(responses=DownloadAnswer)
    def delete(self, request: Request, pk: int, task: int) -> Response:
        """Stop a download. What the node has fetched stays with it; LM Studio goes on by itself."""
        row = services.cancel_download(node_id=pk, download_id=task, actor=actor_of(request))
        return Response(DownloadAnswer(row).data)


class DeleteModel(APIView):
    rules: Final[ApiRules] = {"POST": MANAGE}

    @extend_schema(request=DeleteRequest, responses={204: None})
    def post(self, request: Request, pk: int) -> Response:
        """Have a node delete a model: one of llmlb's own, or Ollama. It is out of routing at once."""
        form = DeleteRequest(data=request.data)
        form.is_valid(raise_exception=True)
        services.delete_model(node_id=pk, model_id=form.validated_data["model"], actor=actor_of(request))
        return Response(status=204)


class Logs(APIView):
    rules: Final[ApiRules] = {"GET": Permission.LOGS_READ}

    @extend_schema(parameters=[LogQuery], responses=LogAnswer)
    def get(self, request: Request, pk: int) -> Response:
        """The newest lines of a node's own log. 404 where it shows none, 413 where they are more than 10 MB."""
        form = LogQuery(data=request.query_params)
        form.is_valid(raise_exception=True)
        asked = form.validated_data
        found = services.read_logs(node_id=pk, lines=asked.get("tail", asked.get("limit", DEFAULT_LINES)))
        return Response({"entries": found.entries, "path": found.path})
