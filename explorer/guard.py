"""Checks of every request, and security headers of every answer, around the whole application.

The server listens only on loopback, but pages of other sites that the reader has open can still send requests to it.
A page whose host name resolves to 127.0.0.1 (DNS rebinding) is refused by the check of Host. A page that posts to the
explorer's address from another address is refused by the check of Origin.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from storage.site import PAGE

NAMES = ("127.0.0.1", "localhost", "[::1]")
READING = ("GET", "HEAD")
# values of Sec-Fetch-Site that are refused; a request from a page on another port of this machine has "same-site"
STRANGERS = ("cross-site", "same-site")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_POLICY = (  # the study's page has its styles and pictures within itself, and no script
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
App = Callable[..., Awaitable[None]]


class Guard:
    """ASGI middleware: refuses foreign hosts and foreign origins, and adds HEADERS to all answers."""

    def __init__(self, app: App, port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # web sockets are not supported
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = {"content-security-policy": PAGE_POLICY} if scope["path"] == f"/{PAGE}" else {}
                MutableHeaders(scope=message).update(HEADERS | own)
            await send(message)

        reason = self.refused(scope["method"], Headers(scope=scope))
        answer = self.app if reason is None else JSONResponse({"error": reason}, 403)
        await answer(scope, receive, with_headers)

    def refused(self, method: str, headers: Headers) -> str | None:
        """The reason for refusing a request, or None. A header that is sent twice is refused."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return "only loopback names are answered here: 127.0.0.1, localhost"
        own = [f"http://{hosts[0].lower()}"]
        if headers.get("sec-fetch-site") in STRANGERS and headers.get("sec-fetch-mode") != "navigate":
            return "only the explorer's own page is answered here"  # refuses an <img> or <script> in another page
        if method in READING and not origins:
            return None
        if [origin.lower() for origin in origins] != own:
            return "only the explorer's own page is answered here"
        return None
