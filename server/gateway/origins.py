"""Which web pages may use this server, and what proxies say about a connection."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from aqaa.server.config import Settings

LOOPBACK = ("localhost", "127.0.0.1", "::1")
DEFAULT_PORTS = {"http": 80, "https": 443}
FORWARDED = "aqaa.forwarded"  # key in the scope: a trusted proxy named the host


def origin_is_ours(connection: HTTPConnection, settings: Settings) -> bool:
    """Whether a web page may connect: one of ours, or of an origin that the settings allow.

    Without this any page that the user visits could talk to a server on the user's loopback.
    Programs send no Origin and pass.
    """
    origin = connection.headers.get("origin")
    if origin is None or "*" in settings.allowed_origins or origin in settings.allowed_origins:
        return True
    try:
        page, own = urlsplit(origin), urlsplit(f"//{connection.headers.get('host', '')}")
        page_port, own_port = _port(page, page.scheme), own.port
    except ValueError:
        return False  # no URL
    behind_proxy = connection.scope.get(FORWARDED, False)
    if settings.host in LOOPBACK and page.hostname not in LOOPBACK and not behind_proxy:
        return False  # a name that someone else has pointed at the user's loopback
    if page.hostname is None or page.hostname != own.hostname:
        return False
    # A proxy that sends Host without its port tells nothing of the port.
    return own_port is None or page_port == own_port


def refusal(origin: str) -> str:
    """What a page that may not connect is told."""
    return (
        f"the web origin {origin[:100]} may not connect: add it to allowed_origins"
        " (AQAA_ALLOWED_ORIGINS), or, behind a proxy, name the proxy in trusted_proxies"
    )


def _port(url: SplitResult, scheme: str) -> int | None:
    return url.port or DEFAULT_PORTS.get(scheme)


class ForwardedHeaders:
    """Believes `X-Forwarded-For`, `-Host` and `-Proto`, but only of proxies that are named."""

    def __init__(self, app: ASGIApp, trusted: Sequence[str]) -> None:
        self._app = app
        self._networks = [ipaddress.ip_network(one, strict=False) for one in trusted]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection as the proxy's client made it."""
        client = scope.get("client")
        if client is not None and self._trusts(client[0]):
            scope = self._as_sent(scope)
        await self._app(scope, receive, send)

    def _trusts(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address):
            ip = ip.ipv4_mapped or ip  # of a server that listens on `::`
        return any(ip in network for network in self._networks)

    def _as_sent(self, scope: Scope) -> Scope:
        scope = {**scope, "headers": list(scope["headers"])}
        headers = Headers(scope=scope)
        addresses = [part.strip() for part in headers.get("x-forwarded-for", "").split(",")]
        others = [address for address in addresses if address and not self._trusts(address)]
        if others:
            scope["client"] = (others[-1], 0)  # the nearest one that no proxy of ours wrote
        proto = headers.get("x-forwarded-proto", "").split(",")[0].strip()
        if proto in ("http", "https"):
            plain = scope["type"] == "http"
            scope["scheme"] = proto if plain else {"http": "ws", "https": "wss"}[proto]
        host = headers.get("x-forwarded-host", "").split(",")[0].strip()
        if host:
            MutableHeaders(scope=scope)["host"] = host
            scope[FORWARDED] = True
        return scope
