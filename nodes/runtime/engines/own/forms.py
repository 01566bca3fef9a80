"""A form in memory: its fields, and the file that was uploaded with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llmlb_site.lib.multipart import MultipartReader, NotAForm, Part, boundary_of
from nodes.runtime.serving.http import Refused, Request

FORM: Final = b"multipart/form-data"
MAX_BYTES: Final = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """The parts of a form and its bytes."""

    parts: list[Part]
    body: bytes

    def text(self, name: str, default: str = "") -> str:
        """The value of a plain field, the last one where it is given more than once."""
        return (self.texts(name) or [default])[-1]

    def texts(self, name: str) -> list[str]:
        """Every value of a plain field, also where it is called `name[]`. Raises: Refused (400)."""
        found = [part for part in self.parts if part.name in (name, f"{name}[]") and not part.is_file]
        try:
            return [self.body[part.start : part.stop].decode() for part in found]
        except UnicodeDecodeError:
            raise Refused(400, "invalid_value", f"'{name}' is not UTF-8 text.", param=name) from None

    def file(self, name: str) -> bytes:
        """The bytes of a file. Raises: Refused (400), where there is none."""
        for part in self.parts:
            if part.name == name and part.is_file and part.size:
                return self.body[part.start : part.stop]
        raise Refused(400, "missing_parameter", f"'{name}' must be a file.", param=name)


async def read_upload(request: Request) -> Upload:
    """The form of a request. Raises: Refused (400, 413, 415), ClientGone."""
    content_type = request.headers.get(b"content-type", b"")
    if content_type.partition(b";")[0].strip().lower() != FORM:
        raise Refused(415, "unsupported_media_type", f"{request.path} takes multipart/form-data.")
    body = await request.body(MAX_BYTES)
    try:
        reader = MultipartReader(boundary_of(content_type))
        reader.feed(body)
        return Upload(reader.finish(), body)
    except NotAForm as error:
        raise Refused(400, "invalid_form", str(error)) from None
