"""The other gateways: as they come (`…-default`), and as their own documentation says to run them.

None of them keeps a history. nginx and HAProxy read no body: they are what a proxy can cost at the least. The routers
check no key of their clients; LiteLLM checks one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

KEY: Final = "sk-side-by-side-0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Place:
    """What a start may use. `metrics_port` is for those that would listen on a fixed one besides."""

    program: str
    port: int
    metrics_port: int
    node_port: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """`package` is a requirement of pip's, or the name of a Debian package. `source` says where its settings are from.

    `most` is how many connections it is asked to bear: more would only measure its backlog.
    """

    name: str
    package: str
    program: str
    arguments: Callable[[Place], list[str]]
    source: str
    debian: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    most: int = 1000

    @property
    def is_default(self) -> bool:
        return self.name.endswith("-default")


def vllm_router(*more: str) -> Callable[[Place], list[str]]:
    return lambda place: [
        "--host=127.0.0.1",
        f"--port={place.port}",
        f"--worker-urls=http://127.0.0.1:{place.node_port}",
        f"--prometheus-port={place.metrics_port}",
        "--prometheus-host=127.0.0.1",
        *more,
    ]


def sglang_router(*more: str) -> Callable[[Place], list[str]]:
    return lambda place: ["launch", *vllm_router(*more)(place)]


def litellm(settings: str = "") -> Callable[[Place], list[str]]:
    def arguments(place: Place) -> list[str]:
        config = place.folder / "config.yaml"
        config.write_text(
            "model_list:\n"
            "  - model_name: bench\n"
            "    litellm_params:\n"
            "      model: openai/bench\n"
            f"      api_base: http://127.0.0.1:{place.node_port}/v1\n"
            "      api_key: none\n"
            f"general_settings:\n  master_key: {KEY}\n{settings}"
        )
        return ["--config", str(config), "--host", "127.0.0.1", "--port", str(place.port)]

    return arguments


def nginx(server: str, upstream: str = "", http: str = "") -> Callable[[Place], list[str]]:
    """`server` is what stands beside `proxy_pass`."""

    def arguments(place: Place) -> list[str]:
        config = place.folder / "nginx.conf"
        # Its worker would become another user, who may not write long bodies into our folder.
        as_root = "user root;\n" if os.geteuid() == 0 else ""
        temporary = "".join(
            f"  {name}_temp_path {place.folder}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config.write_text(
            f"{as_root}daemon off;\nworker_processes 1;\npid {place.folder}/nginx.pid;\n"
            f"error_log {place.folder}/error.log;\n"
            "events { worker_connections 8192; }\n"
            f"http {{\n{temporary}{http}"
            f"  upstream node {{ server 127.0.0.1:{place.node_port}; {upstream} }}\n"
            f"  server {{\n    listen 127.0.0.1:{place.port};\n"
            f'    if ($http_authorization != "Bearer {KEY}") {{ return 401; }}\n'
            f"    location / {{ proxy_pass http://node; {server} }}\n  }}\n}}\n"
        )
        return ["-c", str(config), "-e", f"{place.folder}/error.log"]

    return arguments


def haproxy(settings: str = "", options: str = "") -> Callable[[Place], list[str]]:
    def arguments(place: Place) -> list[str]:
        config = place.folder / "haproxy.cfg"
        config.write_text(
            f"global\n  maxconn 8192\n{settings}"
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 120s\n  timeout server 120s\n"
            f"{options}"
            f"frontend in\n  bind 127.0.0.1:{place.port}\n"
            f'  http-request deny unless {{ req.hdr(authorization) -m str "Bearer {KEY}" }}\n'
            "  default_backend nodes\n"
            f"backend nodes\n  server node 127.0.0.1:{place.node_port}\n"
        )
        return ["-db", "-f", str(config)]

    return arguments


# Its table of prices would be fetched from the net at each start.
OFFLINE: Final = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
VLLM: Final = ("vllm-router==0.1.17", "vllm-router")
SGLANG: Final = ("sglang-router==0.3.2", "sglang-router")
LITELLM: Final = ("litellm[proxy]==1.106.2", "litellm")

PEERS: Final[tuple[Peer, ...]] = (
    Peer(
        "vllm-router",
        *VLLM,
        vllm_router("--policy=round_robin", "--log-level=warning"),
        "its README gives no settings for production: its cheapest policy, and no line of log a request",
    ),
    Peer("vllm-router-default", *VLLM, vllm_router(), "as it comes (cache_aware)"),
    Peer(
        "sglang-router",
        *SGLANG,
        sglang_router("--policy=round_robin", "--log-level=warn"),
        "docs.sglang.io/advanced_features/sgl_model_gateway.html, its cheapest policy, and no line of log a request",
    ),
    Peer("sglang-router-default", *SGLANG, sglang_router(), "as it comes (cache_aware)"),
    # Its core in Rust is a beta that does not take chat completions of OpenAI-compatible nodes
    # (docs.litellm.ai/docs/proxy/rust_gateway). One worker for one core, as the page on production says.
    Peer(
        "litellm",
        *LITELLM,
        litellm("litellm_settings:\n  request_timeout: 600\n  set_verbose: false\n  json_logs: true\n"),
        "docs.litellm.ai/docs/proxy/prod: LITELLM_MODE=PRODUCTION, LITELLM_LOG=ERROR, one worker a core",
        environment={**OFFLINE, "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"},
        most=64,
    ),
    Peer("litellm-default", *LITELLM, litellm(), "as it comes", environment=OFFLINE, most=64),
    Peer(
        "nginx",
        "nginx-light",
        "nginx",
        nginx(
            'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; client_max_body_size 20m;',
            upstream="keepalive 1024; keepalive_requests 1000000;",
            http="  access_log off;\n  keepalive_requests 1000000;\n",
        ),
        "nginx.org/en/docs/http/ngx_http_upstream_module.html#keepalive; buffering off for streams",
        debian=True,
    ),
    Peer(
        "nginx-default",
        "nginx-light",
        "nginx",
        nginx(""),
        "as it comes: HTTP/1.0 to the node, a connection a request, streams buffered",
        debian=True,
    ),
    Peer(
        "haproxy",
        "haproxy",
        "haproxy",
        haproxy("  nbthread 1\n", "  option http-no-delay\n  http-reuse always\n"),
        "docs.haproxy.org/2.6/configuration.html: http-no-delay for interactive replies, http-reuse always",
        debian=True,
    ),
    Peer(
        "haproxy-default",
        "haproxy",
        "haproxy",
        haproxy(),
        "as it comes",
        debian=True,
    ),
)
