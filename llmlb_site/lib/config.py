"""llmlb's settings, read from the environment once, checked, and frozen.

Each variable can also be given as a file: `<NAME>_FILE` holds a path whose content is the value (the usual form
of a mounted secret). A value out of range stops the start with one line: the variable, the value, the range.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from django.core.exceptions import ImproperlyConfigured
from environs import EnvError, FileAwareEnv

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MIB: Final = 1024 * 1024
BALANCER_MODES: Final = ("least_busy", "metrics", "latency", "tps", "round_robin", "prefix")
EXCLUSION_TRIGGERS: Final = ("node_fault", "any_error")
PAYLOAD_MODES: Final = ("none", "encrypted", "plain")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
REDIS_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
LOG_FORMATS: Final = ("console", "json")


@dataclass(frozen=True, slots=True)
class Config:
    """Every `LLMLB_*` variable, typed. Times are seconds, sizes are bytes."""

    host: str
    port: int
    data_dir: Path
    database_url: str | None = field(repr=False)
    redis_url: str | None = field(repr=False)
    secret_key: str | None = field(repr=False)
    allowed_hosts: tuple[str, ...]
    csrf_trusted_origins: tuple[str, ...]
    trusted_proxies: tuple[IPNetwork, ...]
    processes: int
    database_pool: int
    admin_username: str
    admin_password: str | None = field(repr=False)
    bootstrap_api_key: str | None = field(repr=False)
    health_check_interval: int
    probe_timeout: float
    offline_after: int
    load_balancer_mode: str
    queue_max: int
    queue_timeout: float
    connect_timeout: float
    inference_timeout: float
    attempts: int
    exclusion_trigger: str
    exclusion_probe_max: int
    max_body_bytes: int
    max_multipart_bytes: int
    history_retention_days: int
    history_payloads: str
    drain_seconds: float
    lame_duck_seconds: float
    client_timeout: float
    session_days: int
    log_level: str
    log_format: str

    @property
    def scaled(self) -> bool:
        """Shared state, cache, news and broker are Redis; otherwise all of it is in this process."""
        return self.redis_url is not None


@dataclass(frozen=True, slots=True)
class CloudAccess:
    """What the environment says of one cloud provider; both may be empty. The base URL is as it was written."""

    api_key: str = field(default="", repr=False)
    base_url: str = ""


# The variables of each cloud provider, by the provider's prefix: its own usual names, not llmlb's.
CLOUD_VARIABLES: Final[Mapping[str, tuple[str, str]]] = {
    "openai": ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "google": ("GOOGLE_API_KEY", "GOOGLE_API_BASE_URL"),
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_API_BASE_URL"),
}


class _Reader:
    """Reads typed variables and turns every failure into one line that names it."""

    def __init__(self) -> None:
        self.env = FileAwareEnv()

    def text(self, name: str, default: str) -> str:
        return self._get(name, default)

    def optional(self, name: str) -> str | None:
        return self._get(name, "") or None

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value: int = self._number(name, default, low, high, int)
        return value

    def seconds(self, name: str, default: float, low: float, high: float) -> float:
        value: float = self._number(name, default, low, high, float)
        return value

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self._get(name, default).lower()
        if value not in choices:
            raise ImproperlyConfigured(f"{name}={value}: must be one of {', '.join(choices)}.")
        return value

    def redis_url(self, name: str) -> str | None:
        """What the gateways, Celery and the cache all read alike: each of them takes more, and not the same."""
        url = self.optional(name)
        if url is not None and not _is_redis_url(url):
            raise ImproperlyConfigured(
                f"{name}: must be redis://user:password@host:port/number, or rediss:// for TLS (with "
                f"{', '.join(REDIS_OPTIONS)} after a ?). In a password / is written %2F, ? %3F, # %23 and @ %40."
            )
        return url

    def items(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self._get(name, "").split(",") if part.strip())

    def networks(self, name: str) -> tuple[IPNetwork, ...]:
        try:
            return tuple(ipaddress.ip_network(part, strict=False) for part in self.items(name))
        except ValueError as error:
            raise ImproperlyConfigured(f"{name}: {error}; must be a comma-separated list of CIDRs.") from error

    def _get(self, name: str, default: str) -> str:
        try:
            return self.env.str(name, default).strip()
        except (EnvError, OSError, ValueError) as error:
            raise ImproperlyConfigured(f"{name}_FILE={os.environ.get(name + '_FILE')}: {error}") from error

    def _number(self, name: str, default: Any, low: Any, high: Any, kind: Any) -> Any:
        raw = self._get(name, str(default))
        try:
            value = kind(raw)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise ImproperlyConfigured(f"{name}={raw}: must be a number from {low} to {high}.")
        return value


def _is_redis_url(url: str) -> bool:
    parts = urlsplit(url)
    try:
        options = set(parse_qs(parts.query, strict_parsing=bool(parts.query)))
        port = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in ("redis", "rediss")
        and bool(parts.hostname)
        and port != 0
        and (parts.path in ("", "/") or parts.path[1:].isdecimal())
        and not parts.fragment
        and options <= set(REDIS_OPTIONS if parts.scheme == "rediss" else ())
    )


def read_config(base_dir: Path) -> Config:
    """The settings of this process, from its environment.

    Raises:
        ImproperlyConfigured: a value cannot be used; the message is one line for the operator.
    """
    read = _Reader()
    key = read.optional("LLMLB_BOOTSTRAP_API_KEY")
    if key is not None and len(key) < 32:
        raise ImproperlyConfigured(f"LLMLB_BOOTSTRAP_API_KEY has {len(key)} characters: must be 32 or more.")
    return Config(
        host=read.text("LLMLB_HOST", "127.0.0.1"),
        port=read.integer("LLMLB_PORT", 32768, 1, 65535),
        data_dir=Path(read.text("LLMLB_DATA_DIR", str(base_dir / "var"))).expanduser().absolute(),
        database_url=read.optional("LLMLB_DATABASE_URL"),
        redis_url=read.redis_url("LLMLB_REDIS_URL"),
        secret_key=read.optional("LLMLB_SECRET_KEY"),
        allowed_hosts=read.items("LLMLB_ALLOWED_HOSTS") or ("*",),
        csrf_trusted_origins=read.items("LLMLB_CSRF_TRUSTED_ORIGINS"),
        trusted_proxies=read.networks("LLMLB_TRUSTED_PROXIES"),
        processes=read.integer("LLMLB_PROCESSES", 1, 1, 64),
        database_pool=read.integer("LLMLB_DATABASE_POOL", 16, 4, 200),
        admin_username=read.text("LLMLB_ADMIN_USERNAME", "admin"),
        admin_password=read.optional("LLMLB_ADMIN_PASSWORD"),
        bootstrap_api_key=key,
        health_check_interval=read.integer("LLMLB_HEALTH_CHECK_INTERVAL", 5, 1, 300),
        probe_timeout=read.seconds("LLMLB_PROBE_TIMEOUT", 5, 1, 30),
        offline_after=read.integer("LLMLB_OFFLINE_AFTER", 2, 1, 10),
        load_balancer_mode=read.choice("LLMLB_LOAD_BALANCER_MODE", "least_busy", BALANCER_MODES),
        queue_max=read.integer("LLMLB_QUEUE_MAX", 100, 1, 10_000),
        queue_timeout=read.seconds("LLMLB_QUEUE_TIMEOUT_SECS", 60, 1, 3600),
        connect_timeout=read.seconds("LLMLB_CONNECT_TIMEOUT", 5, 1, 60),
        inference_timeout=read.seconds("LLMLB_INFERENCE_TIMEOUT_SECS", 120, 10, 3600),
        attempts=read.integer("LLMLB_ATTEMPTS", 2, 1, 5),
        exclusion_trigger=read.choice("LLMLB_EXCLUSION_TRIGGER", "node_fault", EXCLUSION_TRIGGERS),
        exclusion_probe_max=read.integer("LLMLB_EXCLUSION_PROBE_SECS", 60, 0, 3600),
        max_body_bytes=read.integer("LLMLB_MAX_BODY_BYTES", 20 * MIB, 1024, 1024 * MIB),
        max_multipart_bytes=read.integer("LLMLB_MAX_MULTIPART_BYTES", 100 * MIB, 1024, 4096 * MIB),
        history_retention_days=read.integer("LLMLB_REQUEST_HISTORY_RETENTION_DAYS", 7, 0, 3650),
        history_payloads=read.choice("LLMLB_HISTORY_PAYLOADS", "encrypted", PAYLOAD_MODES),
        drain_seconds=read.seconds("LLMLB_DRAIN_SECONDS", 30, 0, 3600),
        lame_duck_seconds=read.seconds("LLMLB_LAME_DUCK_SECONDS", 1, 0, 300),
        client_timeout=read.seconds("LLMLB_CLIENT_TIMEOUT_SECS", 30, 1, 3600),
        session_days=read.integer("LLMLB_SESSION_DAYS", 7, 1, 365),
        log_level=read.choice("LLMLB_LOG_LEVEL", "info", LOG_LEVELS),
        log_format=read.choice("LLMLB_LOG_FORMAT", "console", LOG_FORMATS),
    )


def read_cloud() -> dict[str, CloudAccess]:
    """The cloud providers' keys and base URLs, by prefix.

    Raises:
        ImproperlyConfigured: a `…_FILE` cannot be read.
    """
    read = _Reader()
    return {
        name: CloudAccess(api_key=read.text(key, ""), base_url=read.text(url, ""))
        for name, (key, url) in CLOUD_VARIABLES.items()
    }
