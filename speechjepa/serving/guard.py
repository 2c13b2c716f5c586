"""What surrounds every request: who may ask, what browsers may do with the answer, counting."""

from __future__ import annotations

import ipaddress
from time import monotonic
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speechjepa.serving.answers import ApiError, error_response
from speechjepa.serving.service import Service

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_COUNTED = (
    "/",
    "/health",
    "/metrics",
    "/v1/models",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/audio/stream",
    "/v1/transcripts",
)


class Guard:
    """Refuse requests of other sites' pages, add headers to answers, and count them.

    A browser lets any page send forms and open WebSockets to a server on the same computer, with
    the page's origin in `Origin`; only this server's own page may.

    Args:
        app: What is guarded.
        service: Whose configuration and metrics are used.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        problem = refusal(headers, self._service.config.allowed_hosts)
        if scope["type"] == "websocket":
            if problem is not None:
                await send({"type": "websocket.close", "code": 1008, "reason": problem[:120]})
                return
            await self._app(scope, receive, send)
            return
        started, status = monotonic(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                found = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    found.setdefault(name, value)
            await send(message)

        try:
            if problem is not None:
                response = error_response(ApiError(403, problem, code="forbidden"))
                await response(scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        finally:
            path = _counted_path(scope["path"])
            self._service.metrics.count_request(path, status, monotonic() - started)


def refusal(headers: Headers, allowed_hosts: tuple[str, ...]) -> str | None:
    """Return why a request may not be made, None if it may."""
    host = headers.get("host", "")
    if allowed_hosts and _host_name(host) not in allowed_hosts:
        return (
            f"this server is not called {_host_name(host)[:100]!r}; "
            "`speechjepa serve --allow_host NAME` lets it be"
        )
    origin = headers.get("origin")
    if origin is not None and _netloc(origin) != host.lower():
        return f"pages of {origin[:100]} may not use this server"
    return None


def loopback_names(host: str) -> tuple[str, ...]:
    """Return the names of this computer, if a server listens to nothing else; else nothing."""
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    return ("localhost", "127.0.0.1", "::1", host) if is_loopback else ()


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # a bracket that is not closed
        return ""


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _counted_path(path: str) -> str:
    for known in reversed(_COUNTED):
        if path == known or (known != "/" and path.startswith(f"{known}/")):
            return known
    return "other"
