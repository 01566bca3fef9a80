"""A model's id from where it lies: its path below the models directory, in lower case (SPEC-dcaeaec4)."""

from __future__ import annotations

import re
from typing import Final

_ALLOWED: Final = re.compile(r"[a-z0-9_./-]+\Z")
_NOT_ALLOWED: Final = re.compile(r"[^a-z0-9_./-]")
# Hugging Face's own cache: models--org--name/snapshots/<revision>, beside blobs and refs.
_HUB: Final = re.compile(r"(?P<above>(?:.*/)?)models--(?P<repo>[^/]+)/snapshots/[^/]+(?P<below>/.*)?\Z")
BAD_NAME: Final = "its name has characters that an id cannot have (only letters, digits, - _ . and / can): rename it"


def id_of(relative: str) -> tuple[str, str]:
    """The id of what lies at `relative`, and why it cannot be one; then the id is only for showing."""
    hub = _HUB.match(relative)
    if hub is not None:
        relative = f"{hub['above']}{hub['repo'].replace('--', '/')}{hub['below'] or ''}"
    model_id = relative.lower()
    if _ALLOWED.match(model_id):
        return model_id, ""
    return _NOT_ALLOWED.sub("_", model_id) or "_", BAD_NAME
