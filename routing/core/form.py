"""A form that was uploaded: its fields are read, its bytes stay where they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from llmlb_site.lib.multipart import Part
from routing.core.errors import parameter_invalid


class Storage(Protocol):
    """Where the bytes of an upload are kept. They can be read again and again."""

    @property
    def length(self) -> int:
        """Bytes."""

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """From `start` to `stop`, in pieces of modest size."""


@dataclass(frozen=True, slots=True)
class Spliced:
    """A body that is another one with one stretch of it replaced. A `BodySource`."""

    storage: Storage
    start: int
    stop: int
    value: bytes

    @property
    def length(self) -> int:
        return self.storage.length - (self.stop - self.start) + len(self.value)

    def pieces(self) -> Iterator[bytes]:
        yield from self.storage.pieces(0, self.start)
        yield self.value
        yield from self.storage.pieces(self.stop)


@dataclass(frozen=True, slots=True)
class Form:
    """The parts of a form, and the whole of its bytes."""

    parts: list[Part]
    storage: Storage

    def text(self, name: str) -> str | None:
        """The value of a plain field; None where there is no such field.

        Raises: Refusal (400): it is given twice, as a file, too long, or not UTF-8.
        """
        part = self._only(name)
        if part is None:
            return None
        if part.is_file or not part.is_whole:
            raise parameter_invalid(name, f"'{name}' must be a plain, short field of the form.")
        try:
            return part.head.decode()
        except UnicodeDecodeError:
            raise parameter_invalid(name, f"'{name}' is not UTF-8 text.") from None

    def number(self, name: str) -> Any:
        """The number in a plain field; its text where that is none, for the API's own check to refuse."""
        text = self.text(name)
        if text is None:
            return None
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
        return text

    def flag(self, name: str) -> Any:
        """True or False in a plain field; its text where it is neither, for the API's own check to refuse."""
        text = self.text(name)
        return {"true": True, "false": False}.get(text.lower(), text) if text is not None else None

    def file(self, name: str) -> Part:
        """The one file of that name. Raises: Refusal (400): there is none, or more than one, or it is empty."""
        files = self.files(name)
        if len(files) != 1:
            raise parameter_invalid(name, f"The form must hold exactly one file '{name}'.")
        return files[0]

    def files(self, *names: str) -> list[Part]:
        """Every part of these names. Raises: Refusal (400), where one of them is no file, or empty."""
        found = [part for part in self.parts if part.name in names]
        for part in found:
            if not part.is_file:
                raise parameter_invalid(part.name, f"'{part.name}' must be a file of the form.")
            if not part.size:
                raise parameter_invalid(part.name, f"The file '{part.name}' is empty.")
        return found

    def replaced(self, name: str, value: bytes) -> Spliced:
        """The same bytes but for the value of one field, which must be there."""
        part = self._only(name)
        assert part is not None
        return Spliced(self.storage, part.start, part.stop, value)

    def note(self) -> dict[str, Any]:
        """What can be told of it without its files: texts as they are, files by size and type."""
        told: dict[str, Any] = {}
        for part in self.parts:
            value = _note_of(part)
            told[part.name] = [*told[part.name], value] if part.name in told else [value]
        return {name: values[0] if len(values) == 1 else values for name, values in told.items()}

    def _only(self, name: str) -> Part | None:
        found = [part for part in self.parts if part.name == name]
        if len(found) > 1:
            raise parameter_invalid(name, f"'{name}' is given more than once.", code="duplicate_parameter")
        return found[0] if found else None


def _note_of(part: Part) -> Any:
    if part.is_file or not part.is_whole:
        return {"filename": part.filename, "content_type": part.content_type, "bytes": part.size}
    return part.head.decode(errors="replace")
