"""From which servers a node fetches: a list of origins, and whose of them is told the Hugging Face token."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from nodes.runtime.fetching.failures import BadWish, OriginRefused

HUB: Final = "https://huggingface.co"
# Where Hugging Face itself sends those who fetch from it: its short name, and the stores of large files.
HUB_ORIGINS: Final = (HUB, "https://hf.co", "https://*.hf.co", "https://*.huggingface.co")
PORTS: Final = {"http": 80, "https": 443}


def origin_of(url: str) -> str:
    """`https://host`, or `https://host:8443` where the port is not the scheme's own.

    Raises:
        BadWish: it is no http(s) URL, or has credentials in it.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as error:
        raise BadWish("this is not a URL") from error
    if parts.scheme not in PORTS or not host:
        raise BadWish("a URL begins with https:// or http://")
    if "@" in parts.netloc:
        raise BadWish("the URL must not hold credentials")
    location = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{location}" + (f":{port}" if port and port != PORTS[parts.scheme] else "")


@dataclass(frozen=True, slots=True)
class Origins:
    """The origins that may be fetched from. `hub` is Hugging Face's base URL or a mirror's, `token` is for it alone."""

    hub: str = HUB
    token: str = field(default="", repr=False)
    allowed: tuple[str, ...] = HUB_ORIGINS

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Origins:
        """From HF_BASE_URL, HF_TOKEN and LLM_RUNTIME_ALLOWED_ORIGINS, which is added to the hub's; each also as a file.

        Raises:
            BadWish: a variable holds no URL, or its file cannot be read.
        """
        hub = _value(env, "HF_BASE_URL").rstrip("/") or HUB
        more = [text.strip().rstrip("/") for text in _value(env, "LLM_RUNTIME_ALLOWED_ORIGINS").split(",")]
        named = [origin_of(text) for text in more if text]
        return cls(hub, _value(env, "HF_TOKEN"), tuple(dict.fromkeys([origin_of(hub), *HUB_ORIGINS, *named])))

    def check(self, url: str) -> None:
        """Raises: OriginRefused, BadWish."""
        origin = origin_of(url)
        if not any(_matches(origin, pattern) for pattern in self.allowed):
            raise OriginRefused(origin)

    def headers_for(self, url: str) -> dict[str, str]:
        """What this URL's server is told besides the request: the token, if it is the hub's own."""
        if self.token and origin_of(url) == origin_of(self.hub):
            return {"Authorization": f"Bearer {self.token}"}
        return {}

    def is_hub(self, url: str) -> bool:
        """Whether a URL is one of Hugging Face's pages, also where a mirror stands in for it."""
        return origin_of(url) in {origin_of(self.hub), HUB, "https://hf.co", "https://www.huggingface.co"}


def _value(env: Mapping[str, str], name: str) -> str:
    """A variable, or what the file holds that `<NAME>_FILE` names. Raises: BadWish."""
    if value := env.get(name, "").strip():
        return value
    path = env.get(f"{name}_FILE", "").strip()
    try:
        return Path(path).read_text().strip() if path else ""
    except OSError as error:
        raise BadWish(f"{name}_FILE: {error.strerror}") from error


def _matches(origin: str, pattern: str) -> bool:
    scheme, _, rest = pattern.partition("://")
    if not rest.startswith("*."):
        return origin == pattern
    host = origin.removeprefix(f"{scheme}://")
    return host != origin and host.endswith(rest[1:]) and host != rest[1:]
