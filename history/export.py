"""The history as a file: CSV or JSON, streamed, so that its size does not matter."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Final

import msgspec
from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse
from django.utils import timezone

from history.filters import Filters
from history.models import RequestRecord
from history.queries import chunks

COLUMNS: Final = (
    "id", "request_id", "started_at", "kind", "model", "served_model", "node_id", "node_name", "api_key_id",
    "api_key_name", "client_ip", "outcome", "status", "error_code", "error_message", "stream", "poison",
    "attempt_count", "duration_ms", "queue_ms", "first_byte_ms", "prompt_tokens", "completion_tokens", "total_tokens",
    "token_source", "tokens_per_second", "bytes_in", "bytes_out",
)  # fmt: skip
# A spreadsheet takes a cell that begins like this for a formula, and some of our cells are what a client sent.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")

Rows = Iterable[RequestRecord]


def export(filters: Filters, file_format: str) -> StreamingHttpResponse:
    """Everything that fits, newest first, as a download. `file_format` is `csv` or `json`."""
    name = f"llmlb-history-{timezone.now():%Y%m%d-%H%M%S}.{file_format}"
    kind = "text/csv; charset=utf-8" if file_format == "csv" else "application/json"
    write = csv_parts if file_format == "csv" else json_parts
    return StreamingHttpResponse(
        _in_threads(write, chunks(filters)),
        content_type=kind,
        headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"},
    )


def csv_parts(pages: Iterator[Rows]) -> Iterator[str]:
    """A line of names, then a line for each request."""
    yield _csv_lines([COLUMNS])
    for rows in pages:
        yield _csv_lines([_cell(value) for value in _values(row)] for row in rows)


def json_parts(pages: Iterator[Rows]) -> Iterator[str]:
    """One array of objects."""
    opening = "["
    for rows in pages:
        objects = (msgspec.json.encode(dict(zip(COLUMNS, _values(row), strict=True))).decode() for row in rows)
        yield opening + "\n" + ",\n".join(objects)
        opening = ","
    yield "[]\n" if opening == "[" else "\n]\n"


def _values(row: RequestRecord) -> list[Any]:
    return [getattr(row, name) for name in COLUMNS]


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value.isoformat() if hasattr(value, "isoformat") else value


def _csv_lines(lines: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(lines)
    return text.getvalue()


async def _in_threads(write: Callable[[Iterator[Rows]], Iterator[str]], pages: Iterator[Rows]) -> AsyncIterator[str]:
    """The parts as they are made, each step in the request's thread: a client that hangs up ends it between two."""
    parts = write(pages)

    def step() -> str | None:
        return next(parts, None)

    while (part := await sync_to_async(step)()) is not None:
        yield part
