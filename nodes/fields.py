"""What a person may set on a node, and which values it may have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from nodes.models import Node

EDITABLE: Final = frozenset(
    {
        "name",
        "api_key",
        "enabled",
        "max_concurrency",
        "weight",
        "tags",
        "notes",
        "health_check_interval",
        "inference_timeout",
    }
)
MAX_TAGS: Final = 50
MAX_TAG_LENGTH: Final = 50
MAX_NOTES_LENGTH: Final = 10_000
_KEY: Final = re.compile(r"[\x21-\x7e]{1,4000}")


def check_fields(node: Node, values: Mapping[str, Any]) -> None:
    """Set `values` on a node and check the whole of it, also that its name is free.

    Raises:
        ValidationError: with messages by field.
    """
    for name, value in values.items():
        if name not in EDITABLE:
            raise ValidationError({name: _("This field cannot be set.")})
        setattr(node, name, _cleaned(name, value))
    node.full_clean(validate_constraints=False)


def _cleaned(name: str, value: Any) -> Any:
    if name == "api_key":
        return _clean_key(value)
    if name == "tags":
        return clean_tags(value)
    if name == "name":
        return clean_name(value)
    if name == "notes" and len(str(value)) > MAX_NOTES_LENGTH:
        raise ValidationError({"notes": _("At most %(count)d characters.") % {"count": MAX_NOTES_LENGTH}})
    return value


def clean_name(value: Any) -> str:
    """A name that stays on its line in logs. Raises: ValidationError."""
    if not isinstance(value, str) or not value.isprintable():
        raise ValidationError({"name": _("A name is printable text on one line.")})
    return value.strip()


def _clean_key(value: Any) -> str:
    """A key that can be sent in a header; None and the empty string remove it."""
    if value in (None, ""):
        return ""
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        raise ValidationError({"api_key": _("A key is printable ASCII without spaces.")})
    return value


def clean_tags(value: Any) -> list[str]:
    """Tags without empty ones and doubles, in their order. Raises: ValidationError."""
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise ValidationError({"tags": _("Tags are a list of texts.")})
    tags = list(dict.fromkeys(tag.strip() for tag in value if tag.strip()))
    if len(tags) > MAX_TAGS or any(len(tag) > MAX_TAG_LENGTH for tag in tags):
        message = _("At most %(count)d tags of at most %(length)d characters.")
        raise ValidationError({"tags": message % {"count": MAX_TAGS, "length": MAX_TAG_LENGTH}})
    return tags
