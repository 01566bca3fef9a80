"""Everything that arrives: inference and probes to the gateway, sockets to Channels, the rest to Django.

The gateway is routed by Channels ahead of Django's middleware: no thread hop, no session, no ORM on that way.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmlb_site.settings")
django_application = get_asgi_application()  # first: it fills the app registry

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.urls import re_path  # noqa: E402

from llmlb_site.dashboard.websockets import websocket_urlpatterns  # noqa: E402
from llmlb_site.runtime import Runtime  # noqa: E402
from routing.gateway.consumer import Gateway  # noqa: E402

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Root:
    """Routes by protocol and path, and answers lifespan itself: Channels' router refuses what it does not know.

    Inference has a short way: matching patterns and copying the scope would cost it as much as choosing its node.
    """

    def __init__(self) -> None:
        self.runtime = Runtime()
        self._gateway = Gateway(self.runtime.engine)
        # Channels takes ASGI applications where Django's own router takes views.
        routed: Any = self._gateway
        django: Any = django_application
        self._router = ProtocolTypeRouter(
            {
                "http": URLRouter([re_path(r"^(v1(/|$)|(livez|readyz|metrics)$)", routed), re_path("", django)]),
                "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.runtime.started and scope["path"].startswith("/v1/"):
            await self._gateway(scope, receive, send)
            return
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if not self.runtime.started:
            await self.runtime.start()
        await self._router(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.runtime.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.runtime.stop()
        await send({"type": "lifespan.shutdown.complete"})


application = Root()
