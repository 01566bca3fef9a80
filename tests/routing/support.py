"""Small things that the gateway's tests share and that need no gateway."""

from __future__ import annotations

import json
from typing import Any


def chat_body(model: str = "model-a", **values: Any) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}], **values}).encode()
