"""Read one received recording, step by step, within its limits; transcribe it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from speechjepa.audio.decode import open_source
from speechjepa.audio.files import stream_audio
from speechjepa.errors import AudioError, ConfigError, ModelError
from speechjepa.inference.spoken_language import check_language, find_language
from speechjepa.inference.transcribe import (
    TranscribeConfig,
    TranscriptionModel,
    check_options,
    iter_segments,
)
from speechjepa.serving.answers import ApiError
from speechjepa.serving.work import Tell

_BLOCK_SECONDS = 5.0
"""How often it is asked whether anybody still waits (seconds of audio)."""


@dataclass(frozen=True)
class Progress:
    """How far the work has come (seconds of audio)."""

    seconds: float
    total: float | None
    """As the file's header says, if it does."""


@dataclass(frozen=True)
class Segment:
    """A segment of the transcript was found."""

    segment: dict[str, Any]
    progress: Progress


def transcribe_recording(
    model: TranscriptionModel,
    path: Path,
    config: TranscribeConfig,
    *,
    max_seconds: float,
    tell: Tell,
) -> dict[str, Any]:
    """Return the transcript of a recording with its words, as `transcribe` does.

    Args:
        model: A fine-tuned model.
        path: The recording.
        config: How to transcribe.
        max_seconds: Limit of its length (seconds), of what its header says and of what it holds.
        tell: Called with each `Segment` and with `Progress`; what it raises ends the work.

    Raises:
        ApiError: The recording is not audio (400) or too long (413).
    """
    try:
        total = declared_seconds(path)
        refuse_long(total, max_seconds)
        tell(Progress(0.0, total))
        language = find_language(model, path, config.language)
        seconds = 0.0
        segments = []

        def on_progress(done: float) -> None:
            nonlocal seconds
            seconds = done
            tell(Progress(done, total))

        def still_wanted() -> None:
            tell(Progress(seconds, total))

        blocks = limited_blocks(path, model.sample_rate, max_seconds, still_wanted)
        timed = replace(config, word_timestamps=True)
        for segment in iter_segments(model, blocks, timed, on_progress=on_progress):
            segments.append(segment)
            tell(Segment(segment, Progress(seconds, total)))
    except AudioError as error:
        raise undecodable(error) from error
    heard = {} if language.probability is None else {"language_probability": language.probability}
    return {
        "text": " ".join(segment["text"] for segment in segments),
        "language": language.code,
        **heard,
        "duration": seconds,
        "segments": segments,
    }


def check_request(model: TranscriptionModel, config: TranscribeConfig) -> None:
    """Refuse what the model cannot do, before anything is decoded."""
    try:
        check_language(model, config.language)
    except ModelError as error:
        raise ApiError(400, str(error), param="language", code="unknown_language") from error
    try:
        check_options(model, config)
    except (ConfigError, ModelError) as error:
        raise ApiError(400, str(error), param="hotwords" if config.hotwords else None) from error


def undecodable(error: AudioError) -> ApiError:
    """Return what the client is told of a file that cannot be read, without our name for it."""
    reason = str(error).removeprefix(f"{error.path}: ")
    return ApiError(400, f"the file {reason}", param="file", code="undecodable_audio")


def declared_seconds(path: Path) -> float | None:
    """Return how long a recording is by its header; None where it does not say."""
    with open_source(path) as source:
        if source.num_samples is None:
            return None
        return source.num_samples / source.sample_rate


def refuse_long(seconds: float | None, max_seconds: float) -> None:
    """Refuse a recording of so many seconds where that is too many."""
    if seconds is not None and seconds > max_seconds:
        message = (
            f"the recording is longer than {max_seconds / 60:g} minutes, this server's limit; "
            "send it in parts"
        )
        raise ApiError(413, message, param="file", code="audio_too_long")


def limited_blocks(
    path: Path, sample_rate: int, max_seconds: float, still_wanted: Callable[[], None]
) -> Iterator[np.ndarray]:
    """Yield the waveform; a header may promise less than there is."""
    num_samples = 0
    for block in stream_audio(path, sample_rate=sample_rate, block_seconds=_BLOCK_SECONDS):
        num_samples += len(block)
        refuse_long(num_samples / sample_rate, max_seconds)
        still_wanted()
        yield block
