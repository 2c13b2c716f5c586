"""`POST /v1/transcripts/FORMAT`: a transcript that a client holds, as a file to keep.

The page downloads with it what it heard live, which no request of its own transcribed.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from speechjepa.inference.writers import FORMATS
from speechjepa.serving.answers import ApiError
from speechjepa.serving.formats import file_response
from speechjepa.serving.service import Service
from speechjepa.serving.uploads import receive_body, safe_name

router = APIRouter()
MAX_BYTES = 64_000_000


def _printable(text: str) -> str:
    """Leave out control characters, which neither xml nor subtitles may hold."""
    return "".join(c for c in text if c.isprintable() or c == " ")


Seconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Text = Annotated[str, AfterValidator(_printable)]


class Word(BaseModel):
    """A word with its times (seconds)."""

    model_config = ConfigDict(extra="ignore")
    word: Text
    start: Seconds
    end: Seconds
    score: Score = 1.0


class TranscriptSegment(BaseModel):
    """What lies between two pauses."""

    model_config = ConfigDict(extra="ignore")
    id: int = 0
    start: Seconds
    end: Seconds
    text: Text
    score: Score = 1.0
    words: list[Word] = []


class Transcript(BaseModel):
    """A transcript; `filename` is the recording's, which an ELAN document names."""

    model_config = ConfigDict(extra="ignore")
    filename: Text = ""
    language: Text | None = None
    duration: Seconds
    segments: list[TranscriptSegment]


@router.post("/v1/transcripts/{format_name}")
async def write_transcript(request: Request, format_name: str) -> Response:
    """Return a transcript, given as json, in one of the writers' formats."""
    service: Service = request.app.state.service
    if format_name not in FORMATS:
        message = f"there is no format {format_name[:40]!r}; there are {', '.join(FORMATS)}"
        raise ApiError(404, message)
    idle_seconds = service.config.idle_seconds
    body = await receive_body(request, max_bytes=MAX_BYTES, idle_seconds=idle_seconds)
    try:
        # In a thread: of the largest body this takes seconds, in which others would wait.
        given = await asyncio.to_thread(Transcript.model_validate_json, body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ApiError(422, f"{where}: {first['msg']}", param=where) from error
    segments = [segment.model_dump() for segment in given.segments]
    result = {
        "text": " ".join(segment["text"] for segment in segments),
        "language": given.language,
        "duration": given.duration,
        "segments": segments,
        "path": safe_name(given.filename),
    }
    return await asyncio.to_thread(file_response, result, format_name)
