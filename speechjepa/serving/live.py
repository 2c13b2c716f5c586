"""`/v1/audio/stream`: a WebSocket that takes audio as it is spoken and answers while it is heard.

The client sends binary messages of 16-bit little-endian samples of one channel, at most 1 MiB each,
at the rate that `?sample_rate=` names (16000 Hz if it does not), and at the end the text
`{"type": "finish"}`. What it gets is chosen by `?task=`:

`transcribe` (where the server can): json, first `ready`; then `words`, with those that are `final`
since the message before, those that may still change (`partial`), the `seconds` heard, and whether
a pause follows (`endpoint`); after `finish` the last `words` with `"done": true`.

`translate`: json, first `ready`, which names the `speech_sample_rate`; then `translation`, with the
`units` and the `text` (null where the model writes none) that are new and never revised, the
`seconds` heard, the `speech_seconds` said so far, and whether a long pause was heard (`endpoint`).
New speech follows each as a binary message of 16-bit samples. After `finish` the last of both, the
json with `"done": true`.

Or `error`, in the shape of OpenAI's errors, after which the server closes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from fastapi import APIRouter, Response, WebSocket, WebSocketDisconnect

from speechjepa.errors import SpeechJepaError
from speechjepa.inference.spoken_language import AUTO, resolve_language
from speechjepa.inference.stream import Heard
from speechjepa.inference.translate_stream import Said
from speechjepa.serving.answers import ApiError, Busy, error_response
from speechjepa.serving.listening import Hearer, Listener, Message
from speechjepa.serving.service import Service
from speechjepa.serving.spoken import pcm

router = APIRouter()
_DONE, _NOT_ALLOWED, _FAILED, _TRY_AGAIN = 1000, 1008, 1011, 1013


@router.websocket("/v1/audio/stream")
async def listen(socket: WebSocket) -> None:
    """Hear a live connection to its end."""
    service: Service = socket.app.state.service
    await socket.accept()
    try:
        try:
            with service.stream_places.taken_place():
                await Listener(socket, service, _hearer(socket, service)).run()
            await socket.close(_DONE)
        except Busy as error:
            await _refuse(socket, error, _TRY_AGAIN)
        except ApiError as error:
            await _refuse(socket, error, _FAILED if error.status >= 500 else _NOT_ALLOWED)
        except SpeechJepaError as error:
            await _refuse(socket, ApiError(400, str(error)), _NOT_ALLOWED)
    except WebSocketDisconnect:
        service.metrics.add("dropped", 1)


@router.api_route("/v1/audio/stream", methods=["GET", "POST"])
async def say_what_it_is() -> Response:
    """Answer who asks by HTTP."""
    message = (
        "/v1/audio/stream is a WebSocket: connect to it by ws:// or wss://; a proxy on the way "
        "must pass on `Upgrade: websocket`"
    )
    response = error_response(ApiError(426, message, code="websocket_needed"))
    response.headers["Upgrade"] = "websocket"
    return response


async def _refuse(socket: WebSocket, error: ApiError, code: int) -> None:
    await socket.send_json({"type": "error", **error.as_dict()})
    await socket.close(code)


def _hearer(socket: WebSocket, service: Service) -> Hearer:
    query = socket.query_params
    task = query.get("task", "translate" if service.model is None else "transcribe")
    if task == "transcribe":
        return Transcribing(service, query.get("model"), query.get("language"))
    if task == "translate":
        return Translating(service, query.get("model"))
    message = f"`task` must be transcribe or translate, but is {task[:100]!r} instead"
    raise ApiError(400, message, param="task")


class Transcribing:
    """Makes words of audio.

    Args:
        service: What the server shares.
        model: The client's name for it.
        language: That the client asks for.
    """

    def __init__(self, service: Service, model: str | None, language: str | None) -> None:
        transcriber, config = service.transcriber(), service.config
        service.check_model(model)
        wanted = language or config.transcribe.language
        self._language = resolve_language(None if wanted == AUTO else wanted, transcriber.languages)
        self._name = service.name
        self.sample_rate: int = transcriber.sample_rate
        self._stream = transcriber.stream(
            language=self._language,
            chunk_seconds=config.chunk_seconds,
            decoder=config.transcribe.decoder,
        )

    def ready(self) -> dict[str, Any]:
        """Return which model hears, and in which language."""
        return {"task": "transcribe", "model": self._name, "language": self._language}

    def feed(self, samples: np.ndarray) -> Iterator[Message]:
        """Return the words of the next samples."""
        return (self._words(heard) for heard in self._stream.feed(samples))

    def finish(self, *, done: bool) -> Iterator[Message]:
        """Return the last words."""
        yield self._words(self._stream.finish(), done=done)

    def _words(self, heard: Heard, *, done: bool = False) -> Message:
        return {
            "type": "words",
            "final": heard.final,
            "partial": heard.partial,
            "seconds": round(heard.seconds, 3),
            "endpoint": heard.endpoint,
            "done": done,
        }


class Translating:
    """Makes speech in another language of audio.

    Args:
        service: What the server shares.
        model: The client's name for it.
    """

    def __init__(self, service: Service, model: str | None) -> None:
        self._served = service.interpreter()
        service.check_model(model, self._served.name)
        self._stream = self._served.stream()
        self.sample_rate: int = self._stream.sample_rate
        self._num_said = 0

    def ready(self) -> dict[str, Any]:
        """Return which model hears, and what it makes of it."""
        about = self._served.about()
        return {
            "task": "translate",
            "model": about["model"],
            "language": about["into"],
            "source_language": about["from"],
            "speech_sample_rate": self._served.sample_rate if about["speech"] else None,
        }

    def feed(self, samples: np.ndarray) -> Iterator[Message]:
        """Return the translation of the next samples."""
        return self._told(self._stream.feed(samples))

    def finish(self, *, done: bool) -> Iterator[Message]:
        """Return the rest of the translation."""
        return self._told(self._stream.finish(), done=done)

    def _told(self, said: Said, *, done: bool = False) -> Iterator[Message]:
        self._num_said += len(said.speech)
        seconds = None
        if self._served.speaks:
            seconds = round(self._num_said / self._served.sample_rate, 3)
        yield {
            "type": "translation",
            "units": list(said.units),
            "text": said.text,
            "seconds": round(said.seconds, 3),
            "speech_seconds": seconds,
            "endpoint": said.endpoint,
            "done": done,
        }
        if len(said.speech):
            yield pcm(said.speech)
