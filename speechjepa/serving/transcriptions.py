"""`POST /v1/audio/transcriptions`, as the OpenAI API has it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from speechjepa.inference.transcribe import TranscribeConfig
from speechjepa.serving.formats import RESPONSE_FORMATS, event, transcript_response, verbose
from speechjepa.serving.jobs import (
    Shower,
    check_temperature,
    read_choice,
    read_stream,
    result_of,
    start_job,
    stream_events,
    wrong,
)
from speechjepa.serving.recording import (
    check_request,
    transcribe_recording,
)
from speechjepa.serving.service import ServedModel, Service
from speechjepa.serving.uploads import Upload
from speechjepa.serving.work import Tell

router = APIRouter()
_MAX_HOTWORDS = 200


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request asks for."""

    model: ServedModel
    config: TranscribeConfig
    response_format: str
    granularities: frozenset[str]
    stream: bool


@router.post("/v1/audio/transcriptions")
async def create_transcription(request: Request) -> Response:
    """Transcribe a recording: a form with `file` and, if wished, the other fields of OpenAI's."""
    service: Service = request.app.state.service

    def work(path: Path, asked: Asked, tell: Tell) -> dict[str, Any]:
        seconds = service.config.max_seconds
        return transcribe_recording(asked.model, path, asked.config, max_seconds=seconds, tell=tell)

    job, asked, upload = await start_job(
        service, request, lambda upload: read_request(upload, service), work
    )
    if asked.stream:
        return await stream_events(service, request, job, Shower(), _done)
    result = await result_of(job, request, service)
    result["path"] = upload.filename
    return await asyncio.to_thread(
        transcript_response, result, asked.response_format, asked.granularities
    )


def read_request(upload: Upload, service: Service) -> Asked:
    """Return what a form asks for.

    `prompt` is taken and not used: a CTC model has no text before its text; `hotwords`, ours, is
    what names and terms go into. `temperature` is checked and not used: nothing is sampled.

    Raises:
        ApiError: A field has a value that it cannot have (400), or there is no such model (404).
    """
    model = service.transcriber()
    service.check_model(upload.last("model"))
    response_format = read_choice(upload, "response_format", RESPONSE_FORMATS, "json")
    granularities = frozenset(filter(None, upload.fields.get("timestamp_granularities", ())))
    for unknown in granularities - {"word", "segment"}:
        raise wrong("timestamp_granularities", "it must be word or segment", unknown)
    if granularities and response_format != "verbose_json":
        message = "it needs response_format verbose_json"
        raise wrong("timestamp_granularities", message, response_format)
    check_temperature(upload)
    stream = read_stream(upload)
    parts = re.split(r"[,\r\n]", upload.last("hotwords") or "")
    words = tuple(dict.fromkeys(" ".join(part.split()) for part in parts if part.strip()))
    if len(words) > _MAX_HOTWORDS:
        raise wrong("hotwords", f"at most {_MAX_HOTWORDS} can be given", f"{len(words)} words")
    config = replace(
        service.config.transcribe,
        language=upload.last("language") or service.config.transcribe.language,
        hotwords=words or service.config.transcribe.hotwords,
    )
    check_request(model, config)
    return Asked(
        model=model,
        config=config,
        response_format=response_format,
        granularities=granularities or frozenset(["segment"]),
        stream=stream,
    )


def _done(result: dict[str, Any]) -> str:
    return event("transcript.text.done", **verbose(result, frozenset()))
