"""How a fake node behaves, and what it has seen."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Mode = Literal[
    "ok",
    "refuse_models",
    "empty_models",
    "garbage_models",
    "hang",
    "garbage",
    "cut_before_headers",
    "cut_in_body",
    "cut_mid_stream",
    "no_finish",
    "not_json",
    "unknown_model_404",
    "half_close",
    "slow_headers",
    "busy_429",
    "flap",
]
MODES: Final[tuple[str, ...]] = typing.get_args(Mode)
LISTING_MODES: Final = frozenset({"refuse_models", "empty_models", "garbage_models"})


@dataclass
class Behaviour:
    """What a fake node does wrong, and how fast it is. Times are seconds.

    `mode` and `status` are the misbehaviour: `only_models` limits it to requests for those models, `times` to the
    first so many requests that it applies to. The rest holds for every request. `says` is the assistant's message of a
    chat, in place of tokens; `ends` are members of its last choice. `encoding` is that of embeddings, whichever was
    asked for.

    - `refuse_models`, `empty_models`, `garbage_models`: the listing of models is 500, empty, or a web page
    - `hang`: every request is read and never answered (with `only_models`: inference alone)
    - `garbage`: bytes that are not HTTP · `not_json`: 200 with a web page · `busy_429` · `unknown_model_404`
    - `cut_before_headers`, `cut_in_body`, `cut_mid_stream` (after `cut_after` chunks): the connection ends there,
      with a reset where `reset` is set
    - `no_finish`: a stream that ends cleanly, with `[DONE]`, but without a `finish_reason`
    - `half_close`: each answer is whole, then the connection is closed without a word
    - downloads that it is asked for have `download_bytes`, take `download_seconds`, and fail with `download_error`
    - `slow_headers`: the head of the answer dribbles over `latency` (or 1 s) · `flap`: every other request is 500
    """

    mode: Mode = "ok"
    latency: float = 0.0
    models_latency: float = 0.0
    chunks: int = 5
    chunk_interval: float = 0.0
    tells_usage: bool = True
    says: dict[str, Any] | None = None
    ends: dict[str, Any] = field(default_factory=dict)
    encoding: str | None = None
    status: int = 200
    error_body: Any = None
    cut_after: int = 2
    reset: bool = False
    download_bytes: int = 200_000_000
    download_seconds: float = 0.5
    download_error: str = ""
    only_models: tuple[str, ...] = ()
    times: int | None = None
    applied: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is one of {', '.join(MODES)}")
        self.only_models = tuple(self.only_models)

    def applies_to(self, model: str) -> bool:
        """Whether the misbehaviour hits this request for `model`; counts it if so."""
        if self.only_models and model not in self.only_models:
            return False
        if self.times is not None and self.applied >= self.times:
            return False
        self.applied += 1
        return True

    def changed(self, fields: dict[str, Any]) -> Behaviour:
        """A copy with other values. Raises: TypeError or ValueError for a field or a mode that does not exist."""
        return dataclasses.replace(self, **fields)


@dataclass
class SeenRequest:
    """One request as the fake node saw it. Times are of `time.monotonic`; header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    started: float
    ended: float | None = None
    aborted_at: float | None = None
    query: str = ""

    @property
    def aborted(self) -> bool:
        """The client closed the connection before its answer was complete."""
        return self.aborted_at is not None
