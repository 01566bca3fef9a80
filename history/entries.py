"""What the gateway hands to the recorder: plain data, made on the event loop, written elsewhere.

Thousands of these wait at full load. They hold no cycles, so the garbage collection need not look at them.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class AttemptEntry(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One try on one node. Times are milliseconds."""

    node_id: int
    node_name: str
    selection_reason: str
    status: int | None = None
    error: str = ""
    excluded: bool = False
    duration_ms: float = 0.0


class RequestEntry(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One request from first byte to last, as a row of `RequestRecord` plus its attempts and bodies.

    `started_at` is aware. `request_body` and `response_body` are what the client sent and got (the raw SSE text of a
    stream), already cut to what is worth keeping; empty where payloads are not kept. Times are milliseconds, sizes
    bytes. The entry is the recorder's once it was put: nobody else changes it.
    """

    request_id: str
    started_at: datetime
    kind: str
    outcome: str
    status: int
    duration_ms: float
    model: str = ""
    served_model: str = ""
    node_id: int | None = None
    node_name: str = ""
    api_key_id: int | None = None
    api_key_name: str = ""
    client_ip: str = ""
    error_code: str = ""
    error_message: str = ""
    stream: bool = False
    poison: bool = False
    queue_ms: float = 0.0
    first_byte_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    token_source: str = ""
    tokens_per_second: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    attempts: list[AttemptEntry] = msgspec.field(default_factory=list)
    request_body: bytes = b""
    response_body: bytes = b""
    request_truncated: bool = False
    response_truncated: bool = False
