"""Why a node was not registered, synced or changed. Status and code go to API clients; no text holds an address.

Refusal (access.refusals)
├── NodeUnreachable        502: it did not answer
├── ModelListUnavailable   502: it answered, but with no model list
├── NoExecutableModels     400: its model list is empty
├── NodeOffline            503: a sync of a registered node failed
└── UnknownNode            404
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
