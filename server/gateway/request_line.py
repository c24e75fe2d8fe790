"""A request's method and path as people, their tools and their proxies write them."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ADDRESS = re.compile(r"^(http|ws)s?://[^/]*")  # RFC 9112, 3.2.2: proxies may send the whole URL
API = re.compile(r"/(v1|health)/.")  # of these paths a slash at the end means nothing


class RequestLine:
    """Reads a request's first line with leave.

    HEAD is answered as GET is, without its body: monitors and load balancers ask so. Slashes that
    follow one another are one (`http://host:8000/` and `/v1/models`), and one behind a path of the
    API is none. A whole URL is its path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = re.sub("/{2,}", "/", ADDRESS.sub("", scope["path"])) or "/"
        if API.search(path):
            path = path.rstrip("/")
        if scope["type"] == "websocket" and path == scope.get("root_path"):
            path += "/"  # where the page is, which is no conversation: told so as of other paths
        scope = {**scope, "path": path}
        if scope.get("method") != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, without_body)
