"""`POST /v1/audio/transcriptions`, as the OpenAI API has it, and `/v1/models`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from speechjepa.errors import ModelError, SpeechJepaError
from speechjepa.inference.transcribe import TranscribeConfig
from speechjepa.serving.answers import ApiError, ClientGone
from speechjepa.serving.formats import RESPONSE_FORMATS, event, transcript_response, verbose
from speechjepa.serving.recording import (
    Progress,
    Segment,
    check_request,
    transcribe_recording,
)
from speechjepa.serving.service import Service
from speechjepa.serving.uploads import Upload, receive_upload
from speechjepa.serving.work import Job, Stopped, Tell

router = APIRouter()
_STARTED = int(time.time())
_MAX_HOTWORDS = 200


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request asks for."""

    config: TranscribeConfig
    response_format: str
    granularities: frozenset[str]
    stream: bool


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """List the one model that is served."""
    return {"object": "list", "data": [_model(request.app.state.service)]}


@router.get("/v1/models/{name:path}")
async def get_model(request: Request, name: str) -> dict[str, Any]:
    """Describe the model."""
    service: Service = request.app.state.service
    service.check_model(name)
    return _model(service)


def _model(service: Service) -> dict[str, Any]:
    languages = list(service.model.languages)
    described = {"id": service.name, "object": "model", "created": _STARTED}
    return {**described, "owned_by": "speechjepa", "languages": languages}


@router.post("/v1/audio/transcriptions")
async def create_transcription(request: Request) -> Response:
    """Transcribe a recording: a form with `file` and, if wished, the other fields of OpenAI's."""
    service: Service = request.app.state.service
    job, asked, upload = await _start(service, request)
    if asked.stream:
        return await _stream(service, request, job)
    result = await _result(job, request, service)
    result["path"] = upload.filename
    return await asyncio.to_thread(
        transcript_response, result, asked.response_format, asked.granularities
    )


async def _start(service: Service, request: Request) -> tuple[Job, Asked, Upload]:
    """Receive the form and start the work on it, which removes the file when it ends."""
    give_back = service.places.take()
    upload: Upload | None = None
    try:
        config = service.config
        upload = await receive_upload(
            request,
            service.uploads,
            max_bytes=config.max_upload_bytes,
            idle_seconds=config.idle_seconds,
        )
        asked = read_request(upload, service)
        path = upload.path
        if path is None:
            raise ApiError(400, "the form lacks `file`, the recording", param="file")
        check_request(service.model, asked.config)
        service.metrics.add("bytes", path.stat().st_size)

        def work(tell: Tell) -> dict[str, Any]:
            def share_and_tell(news: Any) -> None:
                service.share_cores()
                tell(news)

            return transcribe_recording(
                service.model,
                path,
                asked.config,
                max_seconds=config.max_seconds,
                tell=share_and_tell,
            )

        def on_end(upload: Upload = upload) -> None:
            upload.remove()
            give_back()

        return service.workers.start(work, on_end), asked, upload
    except BaseException:
        if upload is not None:
            upload.remove()
        give_back()
        raise


def read_request(upload: Upload, service: Service) -> Asked:
    """Return what a form asks for.

    `prompt` is taken and not used: a CTC model has no text before its text; `hotwords`, ours, is
    what names and terms go into. `temperature` is checked and not used: nothing is sampled.

    Raises:
        ApiError: A field has a value that it cannot have (400), or there is no such model (404).
    """
    service.check_model(upload.last("model"))
    response_format = upload.last("response_format") or "json"
    known = {name.lower(): name for name in RESPONSE_FORMATS}
    if response_format.lower() not in known:
        message = f"it must be one of {', '.join(RESPONSE_FORMATS)}"
        raise _wrong("response_format", message, response_format)
    response_format = known[response_format.lower()]
    granularities = frozenset(filter(None, upload.fields.get("timestamp_granularities", ())))
    for unknown in granularities - {"word", "segment"}:
        raise _wrong("timestamp_granularities", "it must be word or segment", unknown)
    if granularities and response_format != "verbose_json":
        message = "it needs response_format verbose_json"
        raise _wrong("timestamp_granularities", message, response_format)
    temperature = upload.last("temperature") or "0"
    if not _is_within(temperature, 0, 2):
        raise _wrong("temperature", "it must be a number from 0 to 2", temperature)
    stream = (upload.last("stream") or "false").lower()
    if stream not in ("true", "false"):
        raise _wrong("stream", "it must be true or false", stream)
    parts = re.split(r"[,\r\n]", upload.last("hotwords") or "")
    words = tuple(dict.fromkeys(" ".join(part.split()) for part in parts if part.strip()))
    if len(words) > _MAX_HOTWORDS:
        raise _wrong("hotwords", f"at most {_MAX_HOTWORDS} can be given", f"{len(words)} words")
    config = replace(
        service.config.transcribe,
        language=upload.last("language") or service.config.transcribe.language,
        hotwords=words or service.config.transcribe.hotwords,
    )
    return Asked(
        config=config,
        response_format=response_format,
        granularities=granularities or frozenset(["segment"]),
        stream=stream == "true",
    )


def _is_within(text: str, least: float, most: float) -> bool:
    try:
        return least <= float(text) <= most
    except ValueError:
        return False


def _wrong(field: str, message: str, value: str) -> ApiError:
    return ApiError(400, f"`{field}`: {message}, but is {value[:100]!r} instead", param=field)


async def _result(job: Job, request: Request, service: Service) -> dict[str, Any]:
    """Return the transcript; `ClientGone` when the client leaves before."""

    async def read() -> dict[str, Any]:
        async for _ in job.news():
            pass
        result: dict[str, Any] = job.result
        return result

    result: dict[str, Any] = await _unless_gone(request, job, service, read)
    service.metrics.add("audio", result["duration"])
    return result


async def _unless_gone(
    request: Request, job: Job, service: Service, read: Callable[[], Awaitable[Any]]
) -> Any:
    reading = asyncio.ensure_future(read())
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            service.metrics.add("dropped", 1)
            raise ClientGone
        return _told(reading)
    finally:
        if not reading.done():
            job.stop()
            reading.cancel()
        leaving.cancel()


def _told(task: asyncio.Future[Any]) -> Any:
    """Return what was read, with errors as the client is told them."""
    try:
        return task.result()
    except Stopped:
        raise ApiError(503, "the server is shutting down", code="shutting_down") from None
    except ModelError as error:  # what the request asks for was checked before
        raise ApiError(500, str(error)) from error


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stream(service: Service, request: Request, job: Job) -> Response:
    """Answer with server-sent events, as OpenAI's `stream=true`.

    A `transcript.text.delta` for each segment has it, with its words, as `segment`, and tells how
    far the work is; those with an empty `delta` only tell that. The answer begins when something
    was found, so that a file that cannot be read has its status code.
    """
    news = job.news()

    async def read() -> Any:
        async for item in news:
            if not isinstance(item, Progress) or item.seconds > 0:
                return item
        return None

    first = await _unless_gone(request, job, service, read)
    return _Events(_events(service, job, news, first), job)


class _Events(StreamingResponse):
    """Ends its job when it ends, however it ends."""

    def __init__(self, events: AsyncIterator[str], job: Job) -> None:
        super().__init__(events, media_type="text/event-stream")
        self.headers["Cache-Control"] = "no-store"
        self._job = job

    async def __call__(self, *args: Any) -> None:
        try:
            await super().__call__(*args)
        finally:
            self._job.stop()


async def _events(
    service: Service, job: Job, news: AsyncIterator[Any], first: Any
) -> AsyncIterator[str]:
    is_done = False
    parts = 0
    shown = Progress(0.0, None)
    try:
        item = first
        while item is not None:
            if isinstance(item, Progress) and item != shown:
                shown = item
                yield _delta("", shown)
            elif isinstance(item, Segment):
                text = item.segment["text"]
                shown = item.progress
                yield _delta(f" {text}" if parts else text, shown, segment=item.segment)
                parts += 1
            item = await anext(news, None)
        result: dict[str, Any] = job.result
        service.metrics.add("audio", result["duration"])
        yield event("transcript.text.done", **verbose(result, frozenset()))
        is_done = True
    except Stopped:
        error = ApiError(503, "the server is shutting down", code="shutting_down")
        yield event("error", **error.as_dict())
        is_done = True
    except (ApiError, SpeechJepaError) as error:
        told = error if isinstance(error, ApiError) else ApiError(500, str(error))
        yield event("error", **told.as_dict())
        is_done = True
    finally:
        if not is_done:
            service.metrics.add("dropped", 1)


def _delta(text: str, progress: Progress, **fields: Any) -> str:
    return event(
        "transcript.text.delta",
        delta=text,
        seconds=progress.seconds,
        total_seconds=progress.total,
        **fields,
    )
