"""From a form to its answer: receive it, work on it in a thread, and stop when nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse

from speechjepa.errors import ModelError, SpeechJepaError
from speechjepa.serving.answers import ApiError, ClientGone, ShuttingDown
from speechjepa.serving.formats import event
from speechjepa.serving.recording import Progress, Segment
from speechjepa.serving.service import Service
from speechjepa.serving.uploads import Upload, receive_upload
from speechjepa.serving.work import Job, Stopped, Tell

AskedT = TypeVar("AskedT")


async def start_job(
    service: Service,
    request: Request,
    read: Callable[[Upload], AskedT],
    work: Callable[[Path, AskedT, Tell], Any],
) -> tuple[Job, AskedT, Upload]:
    """Receive a form and start the work on its file, which is removed when the work ends.

    Args:
        service: What the server shares.
        request: With the form still to be read.
        read: Returns what the form asks for; its `ApiError`s are the answer.
        work: What to do, in a thread, with the file and what was asked for.
    """
    give_back = service.places.take()
    upload: Upload | None = None
    try:
        config = service.config
        try:
            upload = await receive_upload(
                request,
                service.uploads,
                max_bytes=config.max_upload_bytes,
                idle_seconds=config.idle_seconds,
            )
        except asyncio.CancelledError:  # by the server, which ends and waits for nobody any more
            raise ShuttingDown from None
        asked = read(upload)
        path = upload.path
        if path is None:
            raise ApiError(400, "the form lacks `file`, the recording", param="file")
        service.metrics.add("bytes", path.stat().st_size)

        def do(tell: Tell) -> Any:
            def share_and_tell(news: Any) -> None:
                service.share_cores()
                tell(news)

            return work(path, asked, share_and_tell)

        def on_end(upload: Upload = upload) -> None:
            upload.remove()
            give_back()

        return service.workers.start(do, on_end), asked, upload
    except BaseException:
        if upload is not None:
            upload.remove()
        give_back()
        raise


async def result_of(job: Job, request: Request, service: Service) -> dict[str, Any]:
    """Return the result of the work; `ClientGone` when the client leaves before."""

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
        raise ShuttingDown from None
    except ModelError as error:  # what the request asks for was checked before
        raise ApiError(500, str(error)) from error


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def stream_events(
    service: Service,
    request: Request,
    job: Job,
    show: Callable[[Any], Iterator[str]],
    show_result: Callable[[dict[str, Any]], str],
) -> StreamingResponse:
    """Answer with server-sent events, as OpenAI's `stream=true`.

    The answer begins when something was found, so that a file that cannot be read has its status
    code.

    Args:
        service: What the server shares.
        request: Whose client may leave.
        job: That goes on.
        show: Returns the events of something that the work told.
        show_result: Returns the last event.
    """
    news = job.news()

    async def read() -> Any:
        async for item in news:
            if not isinstance(item, Progress) or item.seconds > 0:
                return item
        return None

    first = await _unless_gone(request, job, service, read)
    return _Events(_events(service, job, news, first, show, show_result), job)


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
    service: Service,
    job: Job,
    news: AsyncIterator[Any],
    first: Any,
    show: Callable[[Any], Iterator[str]],
    show_result: Callable[[dict[str, Any]], str],
) -> AsyncIterator[str]:
    is_done = False
    try:
        item = first
        while item is not None:
            for line in show(item):
                yield line
            item = await anext(news, None)
        result: dict[str, Any] = job.result
        service.metrics.add("audio", result["duration"])
        yield show_result(result)
        is_done = True
    except Stopped:
        yield event("error", **ShuttingDown().as_dict())
        is_done = True
    except (ApiError, SpeechJepaError) as error:
        told = error if isinstance(error, ApiError) else ApiError(500, str(error))
        yield event("error", **told.as_dict())
        is_done = True
    finally:
        if not is_done:
            service.metrics.add("dropped", 1)


class Shower:
    """Shows what is found, as events.

    A `transcript.text.delta` for each segment has it as `segment`, and tells how far the work is;
    those with an empty `delta` only tell that.
    """

    def __init__(self) -> None:
        self._parts = 0
        self._shown = Progress(0.0, None)

    def __call__(self, item: Any) -> Iterator[str]:
        if isinstance(item, Progress) and item != self._shown:
            self._shown = item
            yield delta("", item)
        elif isinstance(item, Segment):
            yield from self._found(item)

    def _found(self, item: Segment) -> Iterator[str]:
        text = item.segment["text"] or ""
        self._shown = item.progress
        shown = f" {text}" if self._parts and text else text
        self._parts += bool(text)
        yield delta(shown, item.progress, segment=item.segment)


def delta(text: str, progress: Progress, **fields: Any) -> str:
    """Return the event of a piece of text, which also tells how far the work is."""
    return event(
        "transcript.text.delta",
        delta=text,
        seconds=progress.seconds,
        total_seconds=progress.total,
        **fields,
    )


def wrong(field: str, message: str, value: str) -> ApiError:
    """Return the error of a field that has a value which it cannot have."""
    return ApiError(400, f"`{field}`: {message}, but is {value[:100]!r} instead", param=field)


def read_stream(upload: Upload) -> bool:
    """Return whether events are asked for."""
    stream = (upload.last("stream") or "false").lower()
    if stream not in ("true", "false"):
        raise wrong("stream", "it must be true or false", stream)
    return stream == "true"


def check_temperature(upload: Upload) -> None:
    """Refuse a temperature that is none; it is not used, since nothing is sampled."""
    temperature = upload.last("temperature") or "0"
    try:
        is_within = 0 <= float(temperature) <= 2
    except ValueError:
        is_within = False
    if not is_within:
        raise wrong("temperature", "it must be a number from 0 to 2", temperature)


def read_choice(upload: Upload, field: str, choices: tuple[str, ...], default: str) -> str:
    """Return a field that has one of several values, in capitals or not."""
    given = upload.last(field) or default
    known = {name.lower(): name for name in choices}
    if given.lower() not in known:
        raise wrong(field, f"it must be one of {', '.join(choices)}", given)
    return known[given.lower()]
