"""JSON from people who may mean harm: bounded in size and in depth."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework import parsers

from access.api.errors import ApiError


class JSONParser(parsers.JSONParser):
    """DRF's, but 413 for what is larger than DATA_UPLOAD_MAX_MEMORY_SIZE and 400 for what is nested too deep."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0
        text = stream.read(limit + 1)
        if len(text) > limit:
            raise ApiError(413, "payload_too_large", f"The request body is larger than {limit} bytes.")
        try:
            return super().parse(io.BytesIO(text), media_type, parser_context)
        except RecursionError:
            raise ApiError(400, "malformed_request", "The request body is nested too deeply.") from None
