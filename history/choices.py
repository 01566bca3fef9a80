"""The closed sets of words in a request's row. Apart from the models, so that the gateway can say them too."""

from __future__ import annotations

from typing import Final

from django.db import models
from django.utils.translation import gettext_lazy as _


class Outcome(models.TextChoices):
    """How a request ended, seen from the client."""

    SUCCESS = "success", _("success")
    CLIENT_ERROR = "client_error", _("refused: the client's fault")
    NO_ROUTE = "no_route", _("no node could take it")
    NODE_ERROR = "node_error", _("failed on the nodes")
    CANCELLED = "cancelled", _("the client hung up")
    BROKEN = "broken", _("the stream broke")


class TokenSource(models.TextChoices):
    USAGE = "usage", _("reported by the node")
    ESTIMATED = "estimated", _("estimated")


# What a request can be for, in the words of the inference APIs that serve it.
KINDS: Final = (
    "chat", "completion", "embedding", "responses", "messages", "count_tokens", "rerank",
    "transcription", "translation", "speech", "image", "image_edit", "image_variation",
    "models",
)  # fmt: skip
