"""What listens for an application, and how it ends."""

from __future__ import annotations

import asyncio
import math
import socket

import uvicorn
from fastapi import FastAPI

from speechjepa.serving.listening import MAX_MESSAGE_BYTES
from speechjepa.serving.service import Service

GRACE_SECONDS = 5.0
"""How long requests may go on after Ctrl-C."""
_ANSWER_SECONDS = 2
"""How long those that were stopped then may take to be answered."""


class Server(uvicorn.Server):
    """Answers whoever waits before it ends.

    Args:
        app: From `create_app`.
        log_level: "info" shows every request.
        grace_seconds: How long requests may go on when it is told to end.
    """

    def __init__(
        self, app: FastAPI, *, log_level: str = "warning", grace_seconds: float = GRACE_SECONDS
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level=log_level,
                ws_max_size=MAX_MESSAGE_BYTES,
                ws_max_queue=8,
                timeout_graceful_shutdown=math.ceil(grace_seconds) + _ANSWER_SECONDS,
                server_header=False,
            )
        )
        self._service: Service = app.state.service
        self._grace_seconds = grace_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; work that takes longer is stopped before uvicorn cancels what waits for it."""
        loop = asyncio.get_running_loop()
        stopping = loop.call_later(self._grace_seconds, self._service.stop)
        try:
            await super().shutdown(sockets)
        finally:
            stopping.cancel()
            self._service.stop()  # a second Ctrl-C waits for nothing
