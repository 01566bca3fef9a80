"""Which model a request asks for, and its body as the engine wants it: byte for byte but for the model's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from llmlb_site.lib.multipart import MultipartReader, NotAForm, Part, boundary_of
from nodes.runtime.serving.http import Refused

FORM: Final = b"multipart/form-data"
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Asked(msgspec.Struct):
    """All that the node reads of a JSON request."""

    model: Any = None


_asked = msgspec.json.Decoder(_Asked)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request's body and the model that it names. `part` is where that stands in a form."""

    model: str
    body: bytes
    part: Part | None = None

    def calling_it(self, name: str) -> bytes:
        """The body with the model called so; unchanged where it is called so already."""
        if name == self.model:
            return self.body
        if self.part is not None:
            return self.body[: self.part.start] + name.encode() + self.body[self.part.stop :]
        members = _members.decode(self.body)
        return msgspec.json.encode({**members, "model": name})


def read_asked(content_type: bytes, body: bytes) -> Asked:
    """Raises: Refused (400)."""
    if content_type.partition(b";")[0].strip().lower() == FORM:
        return _of_form(content_type, body)
    try:
        model = _asked.decode(body).model
    except (msgspec.DecodeError, RecursionError):
        raise Refused(400, "invalid_json", "The request body must be a JSON object.") from None
    if not isinstance(model, str) or not model.strip():
        raise _no_model()
    return Asked(model, body)


def _of_form(content_type: bytes, body: bytes) -> Asked:
    try:
        reader = MultipartReader(boundary_of(content_type))
        reader.feed(body)
        parts = [part for part in reader.finish() if part.name == "model" and not part.is_file]
        model = body[parts[0].start : parts[0].stop].decode() if len(parts) == 1 else ""
    except NotAForm as error:
        raise Refused(400, "invalid_form", str(error)) from None
    except UnicodeDecodeError:
        raise _no_model() from None
    if not model.strip():
        raise _no_model()
    return Asked(model, body, parts[0])


def _no_model() -> Refused:
    return Refused(400, "missing_parameter", "'model' must name a model.", param="model")
