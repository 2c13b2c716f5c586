"""`/v1/audio/stream`: a WebSocket that takes audio as it is spoken and answers with words.

The client sends binary messages of 16-bit little-endian samples of one channel, at the rate that
`?sample_rate=` names (16000 Hz if it does not), and at the end the text `{"type": "finish"}`. The
server answers with json: `ready`; `words`, with those that are `final` since the message before,
those that may still change (`partial`), the `seconds` heard, and whether a pause follows
(`endpoint`); after `finish` the last `words` with `"done": true`; or `error`, in the shape of
OpenAI's errors, after which it closes.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import soxr
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from speechjepa.errors import SpeechJepaError
from speechjepa.inference.spoken_language import AUTO, resolve_language
from speechjepa.inference.stream import Heard
from speechjepa.serving.answers import ApiError, Busy
from speechjepa.serving.service import Service

router = APIRouter()
MIN_RATE, MAX_RATE = 8000, 192_000
"""Of the samples that are sent (Hz)."""
MAX_MESSAGE_BYTES = 1 << 20
"""Of one message; some seconds of audio."""
_DONE, _NOT_ALLOWED, _FAILED, _TRY_AGAIN = 1000, 1008, 1011, 1013


@router.websocket("/v1/audio/stream")
async def listen(socket: WebSocket) -> None:
    """Hear a live connection to its end."""
    service: Service = socket.app.state.service
    await socket.accept()
    try:
        try:
            with service.stream_places.taken_place():
                await _Listener(socket, service).run()
            await socket.close(_DONE)
        except Busy as error:
            await _refuse(socket, error, _TRY_AGAIN)
        except ApiError as error:
            await _refuse(socket, error, _FAILED if error.status >= 500 else _NOT_ALLOWED)
        except SpeechJepaError as error:
            await _refuse(socket, ApiError(400, str(error)), _NOT_ALLOWED)
    except WebSocketDisconnect:
        service.metrics.add("dropped", 1)


async def _refuse(socket: WebSocket, error: ApiError, code: int) -> None:
    await socket.send_json({"type": "error", **error.as_dict()})
    await socket.close(code)


class _Listener:
    """One connection."""

    def __init__(self, socket: WebSocket, service: Service) -> None:
        self._socket = socket
        self._service = service
        self._model_rate = service.model.sample_rate
        rate = socket.query_params.get("sample_rate", "16000")
        if not (rate.isdecimal() and len(rate) < 7 and MIN_RATE <= int(rate) <= MAX_RATE):
            message = f"`sample_rate` must be from {MIN_RATE} to {MAX_RATE} Hz, but is {rate[:20]}"
            raise ApiError(400, message, param="sample_rate")
        self._rate = int(rate)
        self._resampler: soxr.ResampleStream | None = None
        if self._rate != self._model_rate:
            self._resampler = soxr.ResampleStream(self._rate, self._model_rate, 1, dtype="float32")
        self._num_samples = 0

    async def run(self) -> None:
        """Hear until the client has finished."""
        model, config = self._service.model, self._service.config
        query = self._socket.query_params
        self._service.check_model(query.get("model"))
        wanted = query.get("language") or config.transcribe.language
        language = resolve_language(None if wanted == AUTO else wanted, model.languages)
        stream = model.stream(
            language=language,
            chunk_seconds=config.chunk_seconds,
            decoder=config.transcribe.decoder,
        )
        await self._socket.send_json(
            {
                "type": "ready",
                "model": self._service.name,
                "language": language,
                "sample_rate": self._rate,
                "chunk_seconds": config.chunk_seconds,
            }
        )
        while (samples := await self._next_samples()) is not None:
            for heard in await self._service.listeners.call(self._feed, stream, samples):
                await self._send(heard)
            if self._num_samples / self._rate > config.max_seconds:
                await self._end(stream, done=False)
                message = f"one connection may last {config.max_minutes:g} minutes; begin another"
                raise ApiError(413, message, code="audio_too_long")
        await self._end(stream, done=True)

    async def _end(self, stream: Any, *, done: bool) -> None:
        *heard, last = await self._service.listeners.call(self._finish, stream)
        for each in heard:
            await self._send(each)
        await self._send(last, done=done)

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

    def _feed(self, stream: Any, samples: np.ndarray) -> list[Heard]:
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples)
        return list(stream.feed(samples)) if len(samples) else []

    def _finish(self, stream: Any) -> list[Heard]:
        rest = np.zeros(0, np.float32)
        if self._resampler is not None:
            rest = self._resampler.resample_chunk(rest, last=True)
        heard = list(stream.feed(rest)) if len(rest) else []
        return [*heard, stream.finish()]

    async def _send(self, heard: Heard, *, done: bool = False) -> None:
        message = {
            "type": "words",
            "final": heard.final,
            "partial": heard.partial,
            "seconds": round(heard.seconds, 3),
            "endpoint": heard.endpoint,
            "done": done,
        }
        await self._socket.send_json(message)


def _check_finish(text: str) -> None:
    try:
        kind = json.loads(text)["type"]
    except (ValueError, TypeError, KeyError, RecursionError):
        kind = None
    if kind != "finish":
        raise ApiError(400, 'the only text message that is known is {"type": "finish"}')
