"""`POST /v1/audio/translations`: as the OpenAI API has it, and as speech.

The OpenAI API answers with English text. This one answers in the language of the model, with text
where the model writes any, with speech where it speaks, and with the units that it speaks in.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from speechjepa.errors import AudioError
from speechjepa.inference.translate import GAP_SECONDS, FileTranslator
from speechjepa.serving.answers import ApiError
from speechjepa.serving.formats import (
    RESPONSE_FORMATS,
    event,
    text_response,
    verbose_translation,
)
from speechjepa.serving.jobs import (
    Shower,
    check_temperature,
    read_choice,
    read_stream,
    result_of,
    start_job,
    stream_events,
)
from speechjepa.serving.recording import (
    Progress,
    Segment,
    declared_seconds,
    limited_blocks,
    refuse_long,
    undecodable,
)
from speechjepa.serving.service import Service
from speechjepa.serving.spoken import (
    SPEECH_FORMATS,
    SpokenFile,
    file_response,
    speech_response,
)
from speechjepa.serving.translators import HEADS, ServedTranslator
from speechjepa.serving.uploads import Upload
from speechjepa.serving.work import Tell

router = APIRouter()
FORMATS = (*RESPONSE_FORMATS, *SPEECH_FORMATS, "zip")
"""Those of transcripts, and as speech; zip has wav and json."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request asks for."""

    translator: FileTranslator
    response_format: str
    stream: bool
    spoken: SpokenFile | None
    """What the translation is said into; None where the model does not speak."""


@dataclass(frozen=True)
class Spoken(Segment):
    """A segment was translated."""

    first: int
    """Where in the translation it is said (samples)."""
    count: int
    """How many samples it has."""


@router.post("/v1/audio/translations")
async def create_translation(request: Request) -> Response:
    """Translate a recording: a form with `file` and, if wished, the other fields of OpenAI's."""
    service: Service = request.app.state.service

    def work(path: Path, asked: Asked, tell: Tell) -> dict[str, Any]:
        return translate_recording(asked, path, max_seconds=service.config.max_seconds, tell=tell)

    job, asked, upload = await start_job(
        service, request, lambda upload: read_request(upload, service), work
    )
    if asked.stream:
        return await stream_events(service, request, job, _Shower(asked), _done)
    result = await result_of(job, request, service)
    return await asyncio.to_thread(_answer, asked, result, upload.filename, service.uploads)


def read_request(upload: Upload, service: Service) -> Asked:
    """Return what a form asks for; `prompt` and `temperature` are taken and not used.

    Raises:
        ApiError: A field has a value that it cannot have (400), or there is no such model (404).
    """
    served = service.interpreter()
    service.check_model(upload.last("model"), served.name)
    check_temperature(upload)
    translator = served.of_files(read_choice(upload, "head", HEADS, HEADS[0]))
    default = "json" if translator.writes_text else "wav" if served.speaks else "verbose_json"
    response_format = read_choice(upload, "response_format", FORMATS, default)
    stream = read_stream(upload)
    if not stream:
        _check_format(response_format, translator, served)
    spoken = None
    if served.speaks:
        spoken = SpokenFile(service.uploads, served.sample_rate)
    return Asked(
        translator=translator, response_format=response_format, stream=stream, spoken=spoken
    )


def _check_format(
    response_format: str, translator: FileTranslator, served: ServedTranslator
) -> None:
    if response_format in SPEECH_FORMATS or response_format == "zip":
        if not served.speaks:
            _refuse("has no voice", "verbose_json and the formats of text", served)
    elif response_format != "verbose_json" and not translator.writes_text:
        _refuse("writes no text", f"{', '.join(SPEECH_FORMATS)}, zip and verbose_json", served)


def _refuse(problem: str, there: str, served: ServedTranslator) -> None:
    message = f"`response_format`: {served.name!r} {problem}; what it can answer with: {there}"
    raise ApiError(400, message, param="response_format")


def translate_recording(
    asked: Asked, path: Path, *, max_seconds: float, tell: Tell
) -> dict[str, Any]:
    """Return the translation of a recording, as `speechjepa translate` writes it.

    Args:
        asked: What translates it, and what it is said into.
        path: The recording.
        max_seconds: Limit of its length (seconds), of what its header says and of what it holds.
        tell: Called with each `Spoken` and with `Progress`; what it raises ends the work.

    Raises:
        ApiError: The recording is not audio (400) or too long (413).
    """
    translator, spoken = asked.translator, asked.spoken
    rate = translator.model.sample_rate
    seconds, total = 0.0, None
    segments = []

    def still_wanted() -> None:
        tell(Progress(seconds, total))

    try:
        total = declared_seconds(path)
        refuse_long(total, max_seconds)
        tell(Progress(0.0, total))

        def blocks() -> Iterator[np.ndarray]:
            nonlocal seconds
            for block in limited_blocks(path, rate, max_seconds, still_wanted):
                yield block
                seconds += len(block) / rate

        for segment, speech in translator.segments(blocks()):
            first = 0
            if spoken is not None:
                first = translator.first_sample(segment)
                spoken.put(speech, first)
            segments.append(segment)
            tell(Spoken(segment, Progress(seconds, total), first, len(speech)))
    except AudioError as error:
        raise undecodable(error) from error
    if spoken is not None and not spoken.num_samples:  # players refuse what holds nothing
        spoken.put(np.zeros(round(GAP_SECONDS * spoken.sample_rate), np.float32), 0)
    return translator.result(segments, seconds)


def _answer(asked: Asked, result: dict[str, Any], filename: str, folder: Path) -> Response:
    if asked.response_format == "verbose_json":
        return JSONResponse(verbose_translation(result))
    if asked.spoken is None or asked.response_format in RESPONSE_FORMATS:
        segments = [{**segment, "text": segment["text"] or ""} for segment in result["segments"]]
        shown = {"path": filename, "segments": segments, "text": result["text"] or ""}
        return text_response(result | shown, asked.response_format)
    if asked.response_format == "zip":
        name = Path(filename).stem or "translation"
        described = {"path": filename, **result}
        return file_response(asked.spoken.zip(name, described, folder), "application/zip")
    return speech_response(asked.spoken, asked.response_format, folder)


class _Shower(Shower):
    """Shows translations as transcripts, and speech where the model speaks.

    A `speech.audio.delta` has that of a segment: base64 of 16-bit samples, `start` seconds after
    the beginning of the translation.
    """

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self._spoken = asked.spoken

    def _found(self, item: Segment) -> Iterator[str]:
        yield from super()._found(item)
        if self._spoken is not None and isinstance(item, Spoken):
            yield self._speech(self._spoken, item)

    def _speech(self, spoken: SpokenFile, item: Spoken) -> str:
        audio = base64.b64encode(spoken.get(item.first, item.count)).decode("ascii")
        return event(
            "speech.audio.delta",
            audio=audio,
            start=item.segment["speech_start"],
            sample_rate=spoken.sample_rate,
        )


def _done(result: dict[str, Any]) -> str:
    described = verbose_translation(result)
    del described["segments"]  # each was told
    return event("transcript.text.done", **described)
