"""What models can be asked to do, in the reader's language: for pages. Messages of the APIs are in plain English."""

from __future__ import annotations

from typing import Final

from django.utils.translation import gettext_lazy as _
from django_stubs_ext import StrPromise

from nodes.capabilities import EMBEDDING, IMAGE, RERANK, SPEECH_TO_TEXT, TEXT, TEXT_TO_SPEECH, TOOLS, VISION

LABELS: Final[dict[str, StrPromise]] = {
    TEXT: _("text generation"),
    VISION: _("vision"),
    EMBEDDING: _("embeddings"),
    RERANK: _("reranking"),
    SPEECH_TO_TEXT: _("speech-to-text"),
    TEXT_TO_SPEECH: _("text-to-speech"),
    IMAGE: _("image generation"),
    TOOLS: _("tools"),
}
CHOICES: Final = list(LABELS.items())
