"""Transcripts in the shapes that the OpenAI API answers with, and as files.

https://platform.openai.com/docs/api-reference/audio/createTranscription
"""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse

from speechjepa.inference.writers import format_result

RESPONSE_FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "tsv", "eaf", "TextGrid")
"""Those of the OpenAI API, and after them ours."""
MEDIA_TYPES = {
    "txt": "text/plain",
    "text": "text/plain",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "tsv": "text/tab-separated-values",
    "json": "application/json",
    "eaf": "application/xml",
    "TextGrid": "text/plain",
}


def transcript_response(
    result: dict[str, Any], response_format: str, granularities: frozenset[str]
) -> Response:
    """Return a transcript as the answer to a request.

    Args:
        result: What `transcribe_recording` returns; "path" is the recording's name.
        response_format: One of `RESPONSE_FORMATS`.
        granularities: What `verbose_json` shows of "segment" and "word".
    """
    if response_format == "verbose_json":
        return JSONResponse(verbose(result, granularities))
    return text_response(result, response_format)


def text_response(result: dict[str, Any], response_format: str) -> Response:
    """Return a transcript or a translation in one of the formats that are text alone."""
    if response_format == "json":
        return JSONResponse({"text": result["text"], "usage": _usage(result)})
    if response_format == "text":
        return Response(result["text"] + "\n", media_type="text/plain; charset=utf-8")
    return file_response(result, response_format)


def file_response(result: dict[str, Any], format_name: str) -> Response:
    """Return a transcript as a file of one of the writers' formats."""
    media_type = f"{MEDIA_TYPES[format_name]}; charset=utf-8"
    return Response(format_result(result, format_name), media_type=media_type)


def verbose(result: dict[str, Any], granularities: frozenset[str]) -> dict[str, Any]:
    """Return `verbose_json`.

    Fields that a CTC model has no value for are there since clients expect them: `tokens` is empty,
    `temperature` and `no_speech_prob` are 0 (silence is no segment), `avg_logprob` is the logarithm
    of our `score`. `score` of segments and words, and the `language_probability` of language
    "auto", are not in the OpenAI API.
    """
    answer: dict[str, Any] = {
        "task": "transcribe",
        "language": result["language"] or "und",
        **{key: result[key] for key in ("language_probability",) if key in result},
        "duration": result["duration"],
        "text": result["text"],
        "usage": _usage(result),
    }
    if "segment" in granularities:
        answer["segments"] = [_segment(segment) for segment in result["segments"]]
    if "word" in granularities:
        answer["words"] = [word for s in result["segments"] for word in s.get("words", ())]
    return answer


def verbose_translation(result: dict[str, Any]) -> dict[str, Any]:
    """Return `verbose_json` of a translation.

    What `speechjepa translate` writes, and the fields that clients of the OpenAI API expect.
    """
    segments = [_segment(segment) | segment for segment in result["segments"]]
    return {"task": "translate", **result, "segments": segments, "usage": _usage(result)}


def _segment(segment: dict[str, Any]) -> dict[str, Any]:
    text = (segment["text"] or "").encode()
    score = segment.get("score", segment.get("confidence", 0.0))
    shown = {
        "id": segment["id"],
        "seek": round(100 * segment["start"]),
        "start": segment["start"],
        "end": segment["end"],
        "text": segment["text"],
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(math.log(max(1e-6, score)), 4),
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 4),
        "no_speech_prob": 0.0,
        "score": score,
    }
    if "alternatives" in segment:
        shown["alternatives"] = segment["alternatives"]
    return shown


def _usage(result: dict[str, Any]) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(result["duration"])}


def event(kind: str, **fields: Any) -> str:
    """Return one server-sent event."""
    return f"data: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n"
