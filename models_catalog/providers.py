"""The cloud providers: where each listens, how it is told who asks, and how it lists its models.

https://platform.openai.com/docs/api-reference/models, https://ai.google.dev/api/models,
https://docs.anthropic.com/en/api/models-list
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypedDict

from llmlb_site.lib.node_addresses import normalise_base_url

ANTHROPIC_VERSION: Final = "2023-06-01"
MAX_MODELS: Final = 5000
MAX_ID: Final = 200
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_BETA_SUFFIX: Final = re.compile(r"(/v1beta)?/*\Z", re.IGNORECASE)
# What of Google's list can be asked for here: the rest makes video, answers questions on documents, and so on.
_GOOGLE_METHODS: Final = frozenset({"generateContent", "embedContent", "batchEmbedContents"})


class Listed(TypedDict, total=False):
    """One model of a provider, as it is kept. The id has no prefix, `created` is Unix time."""

    id: str
    created: int
    context_length: int


@dataclass(frozen=True, slots=True)
class Provider:
    """What is known of a provider beforehand. `auth` gives the headers that carry a key."""

    base_url: str
    list_path: str
    auth: Callable[[str], tuple[tuple[str, str], ...]]
    read: Callable[[Any], Iterator[Listed]]


def normalise_provider_url(name: str, text: str) -> str:
    """The one spelling of a provider's base URL; https where no scheme is given, without the version in its path.

    Raises: BadBaseUrl, AddressRefused (llmlb_site.lib.node_addresses).
    """
    url = text.strip()
    if not _SCHEME.match(url):
        url = f"https://{url}"
    if name == "google":
        url = _BETA_SUFFIX.sub("", url)
    return normalise_base_url(url)


def read_list(name: str, document: Any) -> list[Listed] | None:
    """The models in a provider's answer, in its order and each once. None where it is no list of models."""
    try:
        found = {model["id"]: model for model in PROVIDERS[name].read(document)}
    except (KeyError, TypeError, AttributeError):
        return None
    return [model for id, model in found.items() if id.isprintable() and 0 < len(id) <= MAX_ID][:MAX_MODELS]


def _openai_models(document: Any) -> Iterator[Listed]:
    for entry in document["data"]:
        model = Listed(id=str(entry["id"]))
        if isinstance(entry.get("created"), int):
            model["created"] = entry["created"]
        yield model


def _google_models(document: Any) -> Iterator[Listed]:
    for entry in document["models"]:
        if not _GOOGLE_METHODS.intersection(entry.get("supportedGenerationMethods", _GOOGLE_METHODS)):
            continue
        model = Listed(id=str(entry["name"]).removeprefix("models/"))
        if isinstance(entry.get("inputTokenLimit"), int):
            model["context_length"] = entry["inputTokenLimit"]
        yield model


def _anthropic_models(document: Any) -> Iterator[Listed]:
    for entry in document["data"]:
        model = Listed(id=str(entry["id"]))
        created = _unix_time(entry.get("created_at"))
        if created is not None:
            model["created"] = created
        if isinstance(entry.get("max_input_tokens"), int):
            model["context_length"] = entry["max_input_tokens"]
        yield model


def _unix_time(text: Any) -> int | None:
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except (TypeError, ValueError, OverflowError):
        return None


PROVIDERS: Final[Mapping[str, Provider]] = {
    "openai": Provider(
        base_url="https://api.openai.com",
        list_path="/v1/models",
        auth=lambda key: (("Authorization", f"Bearer {key}"),),
        read=_openai_models,
    ),
    "google": Provider(
        base_url="https://generativelanguage.googleapis.com",
        list_path="/v1beta/models?pageSize=1000",
        auth=lambda key: (("x-goog-api-key", key),),
        read=_google_models,
    ),
    "anthropic": Provider(
        base_url="https://api.anthropic.com",
        list_path="/v1/models?limit=1000",
        auth=lambda key: (("x-api-key", key),),
        read=_anthropic_models,
    ),
}
