"""One live connection: samples come in, whatever is heard in them goes out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import soxr
from fastapi import WebSocket, WebSocketDisconnect

from speechjepa.serving.answers import ApiError
from speechjepa.serving.service import Service

MIN_RATE, MAX_RATE = 8000, 192_000
"""Of the samples that are sent (Hz)."""
MAX_MESSAGE_BYTES = 1 << 20
"""Of one message; some seconds of audio."""

Message = dict[str, Any] | bytes
"""What a client is sent: json, or samples."""


class Hearer(Protocol):
    """What makes messages of audio; used in a thread."""

    sample_rate: int
    """Of the samples that it takes (Hz)."""

    def ready(self) -> dict[str, Any]:
        """Return what the client is told before anything is heard."""
        ...

    def feed(self, samples: np.ndarray) -> Iterable[Message]:
        """Take the next samples (S,), and return what they settle."""
        ...

    def finish(self, *, done: bool) -> Iterable[Message]:
        """Return the rest.

        Args:
            done: The client finished; else a limit was reached.
        """
        ...


class Listener:
    """Hears one connection to its end.

    Args:
        socket: Accepted.
        service: What the server shares.
        hearer: New for this connection.

    Raises:
        ApiError: The client's sample rate is none.
    """

    def __init__(self, socket: WebSocket, service: Service, hearer: Hearer) -> None:
        self._socket = socket
        self._service = service
        self._hearer = hearer
        rate = socket.query_params.get("sample_rate", "16000")
        if not (rate.isdecimal() and len(rate) < 7 and MIN_RATE <= int(rate) <= MAX_RATE):
            message = f"`sample_rate` must be from {MIN_RATE} to {MAX_RATE} Hz, but is {rate[:20]}"
            raise ApiError(400, message, param="sample_rate")
        self._rate = int(rate)
        self._resampler: soxr.ResampleStream | None = None
        if self._rate != hearer.sample_rate:
            self._resampler = soxr.ResampleStream(
                self._rate, hearer.sample_rate, 1, dtype="float32"
            )
        self._num_samples = 0

    async def run(self) -> None:
        """Hear until the client has finished."""
        config = self._service.config
        ready = {
            "type": "ready",
            **self._hearer.ready(),
            "sample_rate": self._rate,
            "chunk_seconds": config.chunk_seconds,
        }
        await self._socket.send_json(ready)
        while (samples := await self._next_samples()) is not None:
            await self._send(await self._service.listeners.call(self._feed, samples))
            if self._num_samples / self._rate > config.max_seconds:
                await self._send(await self._service.listeners.call(self._finish, False))
                message = f"one connection may last {config.max_minutes:g} minutes; begin another"
                raise ApiError(413, message, code="audio_too_long")
        await self._send(await self._service.listeners.call(self._finish, True))

    async def _next_samples(self) -> np.ndarray | None:
        """Return the next samples (S,) as they were sent; None when the client has finished."""
        idle_seconds = self._service.config.idle_seconds
        try:
            message = await asyncio.wait_for(self._socket.receive(), idle_seconds)
        except TimeoutError:
            raise ApiError(408, f"nothing came for {idle_seconds:g} s", code="timeout") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        data: bytes | None = message.get("bytes")
        if data is None:
            _check_finish(message.get("text") or "")
            return None
        if len(data) > MAX_MESSAGE_BYTES or len(data) % 2:
            must = f"a message must hold 16-bit samples, at most {MAX_MESSAGE_BYTES} bytes"
            raise ApiError(400, f"{must}, but has {len(data)} bytes")
        self._num_samples += len(data) // 2
        self._service.metrics.add("live_audio", len(data) / 2 / self._rate)
        return np.frombuffer(data, "<i2").astype(np.float32) / 32768

    def _feed(self, samples: np.ndarray) -> list[Message]:
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples)
        return list(self._hearer.feed(samples)) if len(samples) else []

    def _finish(self, done: bool) -> list[Message]:
        rest = np.zeros(0, np.float32)
        if self._resampler is not None:
            rest = self._resampler.resample_chunk(rest, last=True)
        heard = list(self._hearer.feed(rest)) if len(rest) else []
        return [*heard, *self._hearer.finish(done=done)]

    async def _send(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if isinstance(message, bytes):
                await self._socket.send_bytes(message)
            else:
                await self._socket.send_json(message)


def _check_finish(text: str) -> None:
    try:
        kind = json.loads(text)["type"]
    except (ValueError, TypeError, KeyError, RecursionError):
        kind = None
    if kind != "finish":
        raise ApiError(400, 'the only text message that is known is {"type": "finish"}')
