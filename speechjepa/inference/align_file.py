"""Time a transcript that is given: when each of its lines and words is spoken in a recording."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, Protocol

import numpy as np
import torch

from speechjepa.audio.files import stream_audio
from speechjepa.errors import DataError
from speechjepa.inference.align import WordSpan, align_words, frames_needed
from speechjepa.inference.encoding import stitch_logits
from speechjepa.inference.transcribe import TranscribeConfig, TranscriptionModel
from speechjepa.text.normalize import TextConfig, normalize_text
from speechjepa.text.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

MAX_CELLS = 2_000_000_000
"""Frames times states of the lattice: a byte each while it is computed."""

UNLIKELY = 0.05
"""A mean score below this makes it doubtful that the text is that of the recording."""


class AlignmentModel(TranscriptionModel, Protocol):
    """What `align_file` needs of a model."""

    @property
    def text_config(self) -> TextConfig: ...


def align_file(
    model: AlignmentModel,
    path: str | PathLike[str],
    text: str,
    *,
    text_name: str | PathLike[str] = "the text",
    **options: Any,
) -> dict[str, Any]:
    """Align a transcript with its recording.

    Characters that the model cannot write, and a text that is hardly heard, are told on the log.

    Args:
        model: A fine-tuned model.
        path: Audio of any length.
        text: What is said in it, from beginning to end; every line becomes a segment. Characters
            that the model does not know take no time.
        text_name: What messages call the text, such as its file.
        **options: Fields of `TranscribeConfig`; those of windows and batches are used.

    Returns:
        What `transcribe` returns, words included; they are written as given.

    Raises:
        AudioError: The recording cannot be read.
        DataError: The text holds nothing that the model knows, is too long for the recording, or
            the two together are too long to be aligned at once.
        ModelError: The model has no CTC head.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    words = [word for line in lines for word in line]
    known = [_known(word, model.vocabulary, model.text_config) for word in words]
    spoken = " ".join(filter(None, known))
    if not words:
        raise DataError("is empty: it must hold what is said in the recording", path=text_name)
    if not spoken:
        raise DataError("holds no word that the model can write", path=text_name)
    _tell_unknown(words, known, model, text_name)
    # Speech that a detector misses would have no place for its words.
    config = TranscribeConfig(**{**options, "vad": "none"})
    logits, duration = _logits(model, path, config)
    token_ids = model.vocabulary.encode(spoken)
    if len(logits) * (2 * len(token_ids) + 1) > MAX_CELLS:
        raise DataError("is too long to be aligned at once: divide it and its text", path=path)
    found = align_words(logits, spoken, model.vocabulary, frame_seconds=model.frame_seconds)
    if found is None:
        raise DataError(
            f"lasts {duration:.1f} s, in which {len(token_ids)} characters "
            f"({frames_needed(token_ids)} frames) cannot be said. Is it the right text?",
            path=path,
        )
    _tell_unlikely(found, path, text_name)
    placed = _place(words, known, found)
    segments: list[dict[str, Any]] = []
    for line in lines:
        spans, placed = placed[: len(line)], placed[len(line) :]
        segments.append(_segment(len(segments), line, spans, config.character_timestamps))
    return {
        "text": " ".join(segment["text"] for segment in segments),
        "language": model.languages[0] if len(model.languages) == 1 else None,
        "duration": duration,
        "segments": segments,
    }


def _logits(
    model: AlignmentModel, path: str | PathLike[str], config: TranscribeConfig
) -> tuple[torch.Tensor, float]:
    """Return the logits (T, V) of a recording, and how long it is (seconds)."""
    num_samples = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal num_samples
        for block in stream_audio(path, sample_rate=model.sample_rate):
            num_samples += len(block)
            yield block

    logits = torch.cat(list(stitch_logits(model, counted(), config)))
    return logits, num_samples / model.sample_rate


def _known(word: str, vocabulary: Vocabulary, config: TextConfig) -> str:
    """Return the characters of a word that the model can write."""
    return "".join(c for c in normalize_text(word, config) if c != " " and c in vocabulary)


def _tell_unknown(
    words: Sequence[str],
    known: Sequence[str],
    model: AlignmentModel,
    text_name: str | PathLike[str],
) -> None:
    """Say which characters the model cannot write, and how many words have no other."""
    written = [normalize_text(word, model.text_config).replace(" ", "") for word in words]
    counts = Counter(c for c in "".join(written) if c not in model.vocabulary)
    if not counts:
        return
    shown = ", ".join(f"{character!r} ({count})" for character, count in counts.most_common(20))
    more = f" and {len(counts) - 20} more" if len(counts) > 20 else ""
    num_words = sum(bool(text) and not left for text, left in zip(written, known, strict=True))
    logger.warning(
        "%s: the model cannot write %s%s, which take no time; words that hold nothing else: %d "
        "of %d",
        text_name,
        shown,
        more,
        num_words,
        len(words),
    )


def _tell_unlikely(
    found: Sequence[WordSpan], path: str | PathLike[str], text_name: str | PathLike[str]
) -> None:
    letters = [len(span.word) for span in found]
    mean = sum(n * span.score for n, span in zip(letters, found, strict=True)) / sum(letters)
    if mean < UNLIKELY:
        logger.warning(
            "%s is hardly heard in %s (mean score %.3f): do they belong together?",
            text_name,
            path,
            mean,
        )


def _place(words: list[str], known: list[str], found: list[WordSpan]) -> list[WordSpan]:
    """Give every word a time; one that the model cannot write takes none, where it stands."""
    placed = []
    spans = iter(found)
    now = 0.0
    for word, written in zip(words, known, strict=True):
        if written:
            span = next(spans)
            placed.append(replace(span, word=word))
        else:
            placed.append(WordSpan(word=word, start=now, end=now, score=0.0))
        now = placed[-1].end
    return placed


def _segment(
    number: int, line: list[str], spans: list[WordSpan], with_characters: bool
) -> dict[str, Any]:
    letters = [len(span.word) for span in spans]
    score = sum(n * span.score for n, span in zip(letters, spans, strict=True)) / sum(letters)
    return {
        "id": number,
        "start": _milliseconds(spans[0].start),
        "end": _milliseconds(spans[-1].end),
        "text": " ".join(line),
        "score": round(score, 4),
        "words": [span.as_dict(_milliseconds, characters=with_characters) for span in spans],
    }


def _milliseconds(seconds: float) -> float:
    return math.floor(1000 * seconds + 0.5) / 1000
