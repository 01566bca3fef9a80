"""Why a node was not registered, synced or changed. Status and code go to API clients; no text holds an address.

Refusal (access.refusals)
├── NodeUnreachable        502: it did not answer
├── ModelListUnavailable   502: it answered, but with no model list
├── NoExecutableModels     400: its model list is empty
├── NodeOffline            503: a sync of a registered node failed
├── NodeRefused            502: it was asked for something and did not do it
├── CannotFetch            400: a node of its type fetches (or deletes) no models
├── TooMuch                413: its answer is larger than any should be
└── UnknownNode, UnknownModel, UnknownDownload, NoLogs  404
"""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from access.refusals import Refusal


class NodeUnreachable(Refusal):
    status = 502
    code = "node_unreachable"


class ModelListUnavailable(Refusal):
    status = 502
    code = "model_list_unavailable"


class NoExecutableModels(Refusal):
    status = 400
    code = "no_executable_models"

    def __init__(self) -> None:
        super().__init__(_("The node lists no models: there is nothing that it could execute."))


class NodeOffline(Refusal):
    status = 503
    code = "endpoint_offline"


class NodeRefused(Refusal):
    status = 502
    code = "node_refused"


class CannotFetch(Refusal):
    status = 400
    code = "unsupported_node_type"


class TooMuch(Refusal):
    status = 413
    code = "answer_too_large"

    def __init__(self) -> None:
        super().__init__(_("The node's answer is too large. Ask for less."))


class UnknownDownload(Refusal):
    status = 404
    code = "not_found"

    def __init__(self) -> None:
        super().__init__(_("There is no such download on this node."))


class NoLogs(Refusal):
    status = 404
    code = "no_logs"

    def __init__(self) -> None:
        super().__init__(_("This node does not show its logs."))


class UnknownNode(Refusal):
    status = 404
    code = "not_found"

    def __init__(self) -> None:
        super().__init__(_("There is no such node."))


class UnknownModel(Refusal):
    status = 404
    code = "not_found"

    def __init__(self) -> None:
        super().__init__(_("This node lists no such model."))
