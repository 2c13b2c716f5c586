"""Transcribe a recording of any length in bounded memory.

The file is read as a stream, in overlapping windows (`speechjepa.audio.windows`); the logits are
stitched in the middle of the overlaps, cut into segments at pauses, decoded and aligned segment by
segment. A file that fits in one window is one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from speechjepa.audio.voice import VADS, DetectorName
from speechjepa.errors import AudioError, ConfigError
from speechjepa.inference.align import align_words
from speechjepa.inference.confidence import calibrate, stored_map
from speechjepa.inference.decoding import Choices, Decoder, Search, make_decoder
from speechjepa.inference.encoding import encode_blocks, read_blocks, windows_of
from speechjepa.inference.search import Hypothesis
from speechjepa.inference.segment import SegmentConfig, Segmenter, SegmentLogits
from speechjepa.inference.spoken_language import check_language, find_language
from speechjepa.metrics.calibration import ScoreMap

if TYPE_CHECKING:
    from os import PathLike

    from speechjepa.text.vocabulary import Vocabulary


class TranscriptionModel(Protocol):
    """What `transcribe` needs of a model."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def languages(self) -> Sequence[str]: ...

    @property
    def sample_rate(self) -> int: ...

    @property
    def hop(self) -> int: ...

    @property
    def frame_seconds(self) -> float: ...

    @property
    def utterance_seconds(self) -> float | None: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def vad(self) -> DetectorName: ...

    @property
    def beam_search(self) -> Search | None: ...

    @property
    def calibration(self) -> Mapping[str, Mapping[str, float]]: ...

    def logits(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class TranscribeConfig:
    """How a recording is transcribed."""

    language: str | None = None
    """Code of the spoken language, one of the model's; None = the model's, if it has only one;
    "auto" = as it is heard, which the result gives with its "language_probability"."""
    word_timestamps: bool = False
    """Give every segment its words, with times and scores."""
    character_timestamps: bool = False
    """Give every word its characters too, with times and scores."""
    decoder: Decoder = "auto"
    """Best path, or beam search with the bundle's language model; auto = beam if there is one."""
    language_model: str | None = None
    """ARPA file of characters or words to use instead of the bundle's."""
    hotwords: Sequence[str] = ()
    """Words and phrases to prefer, as the model writes them; a string may hold several, "a,b c"."""
    hotword_score: float = 6.0
    """Added for each time one of them is heard (nats)."""
    n_best: int = 1
    """Texts to give for each segment; those after the first are its `alternatives`."""
    vad: Literal["auto", "silero", "energy", "none"] = "auto"
    """How speech is found before it is decoded: by Silero's detector, by its level above the noise,
    or not at all; auto = as the model says, which is Silero's for every bundle."""
    window_seconds: float = 30.0
    """What the encoder sees at once (seconds). Not much shorter: a window that holds nothing but
    background noise, normalised on its own, is heard as speech."""
    overlap_seconds: float = 4.0
    """What neighbouring windows share (seconds)."""
    batch_size: int = 1
    """Windows computed at once."""
    second_pass: bool = True
    """Hear the speech in pieces as long as the utterances that the model was fine-tuned on, where
    those were much shorter than a window (and without `vad`, after the windows have said where
    speech is); False = windows alone."""
    segments: SegmentConfig = field(default_factory=SegmentConfig)
    """Where the text is cut into segments."""

    def __post_init__(self) -> None:
        self.choices  # noqa: B018 - checks them
        if self.vad not in VADS:
            raise ConfigError(f"`vad` must be one of {VADS}, but is {self.vad!r} instead.")
        if self.batch_size < 1:
            raise ConfigError(f"`batch_size` must be at least 1, but is {self.batch_size} instead.")
        for name in ("window_seconds", "overlap_seconds"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(
                    f"`{name}` must be a number of seconds, but is {getattr(self, name)} instead."
                )

    @property
    def choices(self) -> Choices:
        """How the text is chosen."""
        return Choices(
            decoder=self.decoder,
            language_model=self.language_model,
            hotwords=self.hotwords,
            hotword_score=self.hotword_score,
            n_best=self.n_best,
        )


def transcribe(
    model: TranscriptionModel,
    path: str | PathLike[str],
    *,
    on_progress: Callable[[float], None] | None = None,
    on_segment: Callable[[dict[str, Any]], None] | None = None,
    encoded: Iterable[tuple[int, Tensor]] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Transcribe one audio file.

    Args:
        model: A fine-tuned model, from `speechjepa.load`.
        path: Audio (or video with sound) of any length.
        on_progress: Called with the seconds of audio done so far.
        on_segment: Called with each segment as soon as it is final.
        encoded: (Samples done, logits (T, V)) of the file, where it was encoded with others.
        **options: Fields of `TranscribeConfig`, such as `word_timestamps=True`.

    Returns:
        {"text", "language", "duration", "segments": [{"id", "start", "end", "text", "score",
        "words": [{"word", "start", "end", "score"}]}]}: times and duration in seconds, scores in
        [0, 1]: the probability that the word is right where the model was calibrated on dev, else
        the mean posterior of its characters; a segment's is their mean; "words" only with
        `word_timestamps`, each with "characters" with `character_timestamps`; and with `n_best`,
        "alternatives": [{"text", "score"}], the score a log-probability (nats).

    Raises:
        AudioError: The file cannot be read; its `heard` is what was written before the damage.
        ModelError: The model has no CTC head, does not know the language, or has no language model
            although beam search was asked for.
    """
    config = TranscribeConfig(**options)
    language = find_language(model, path, config.language)
    duration = 0.0

    def note_progress(seconds: float) -> None:
        nonlocal duration
        duration = seconds
        if on_progress is not None:
            on_progress(seconds)

    if encoded is None:
        encoded = encode_blocks(model, read_blocks(model, path, config), config)
    segments: list[dict[str, Any]] = []

    def result() -> dict[str, Any]:
        sure = (
            {} if language.probability is None else {"language_probability": language.probability}
        )
        return {
            "text": " ".join(segment["text"] for segment in segments),
            "language": language.code,
            **sure,
            "duration": duration,
            "segments": segments,
        }

    try:
        for segment in _segments(model, encoded, config, note_progress):
            segments.append(segment)
            if on_segment is not None:
                on_segment(segment)
    except AudioError as error:
        error.heard = result() if segments else None
        raise
    return result()


def iter_segments(
    model: TranscriptionModel,
    blocks: Iterable[np.ndarray],
    config: TranscribeConfig,
    *,
    on_progress: Callable[[float], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield segments of a stream of audio as soon as they are complete.

    Args:
        model: A fine-tuned model.
        blocks: Consecutive pieces (S,) of the waveform, at the model's sample rate.
        config: Settings.
        on_progress: Called with the seconds of audio done so far.
    """
    return _segments(model, encode_blocks(model, blocks, config), config, on_progress)


def _segments(
    model: TranscriptionModel,
    encoded: Iterable[tuple[int, Tensor]],
    config: TranscribeConfig,
    on_progress: Callable[[float], None] | None,
) -> Iterator[dict[str, Any]]:
    vocabulary = model.vocabulary
    decode = make_decoder(vocabulary, model.beam_search, config.choices)
    score_map = stored_map(model.calibration, use_lm=_uses_language_model(model, config))
    segmenter = Segmenter(
        frame_seconds=model.frame_seconds,
        blank_id=vocabulary.blank_id,
        word_boundary_id=vocabulary.word_boundary_id,
        config=config.segments,
    )
    seconds = 0.0
    next_id = 0
    for samples_done, logits in encoded:
        seconds = samples_done / model.sample_rate
        for span in segmenter.push(logits):
            segment = _decode_segment(model, decode, span, seconds, score_map)
            if segment is not None:
                yield _as_dict(next_id, segment, config)
                next_id += 1
        if on_progress is not None:
            on_progress(seconds)
    for span in segmenter.finish():
        segment = _decode_segment(model, decode, span, seconds, score_map)
        if segment is not None:
            yield _as_dict(next_id, segment, config)


def check_options(model: TranscriptionModel, config: TranscribeConfig) -> None:
    """Check that a model can do what is asked of it, before any audio is read.

    Raises:
        ModelError: It has no CTC head, no such language or no language model.
    """
    check_language(model, config.language)
    make_decoder(model.vocabulary, model.beam_search, config.choices)
    windows_of(model, config)


@dataclass(frozen=True, kw_only=True)
class _Segment:
    text: str
    start: float
    end: float
    score: float
    words: list[dict[str, Any]]
    """With their characters."""
    alternatives: tuple[tuple[str, float], ...] = ()


def _uses_language_model(model: TranscriptionModel, config: TranscribeConfig) -> bool:
    has_one = model.beam_search is not None or config.language_model is not None
    return has_one and config.decoder != "greedy"


def _decode_segment(
    model: TranscriptionModel,
    decode: Callable[[Tensor, Tensor], list[Hypothesis]],
    span: SegmentLogits,
    end_of_audio: float,
    score_map: ScoreMap | None,
) -> _Segment | None:
    """Decode and align one segment; None when it holds no text."""
    lengths = torch.tensor([len(span.logits)])
    found = decode(span.logits[None], lengths)[0]
    text = " ".join(found.text.split())
    if not text:
        return None
    offset = span.first_frame * model.frame_seconds
    words = align_words(
        span.logits,
        text,
        model.vocabulary,
        frame_seconds=model.frame_seconds,
        offset=offset,
        end_of_audio=end_of_audio,
    )
    if words:
        words = calibrate(words, score_map)
        letters = [len(word.word) for word in words]
        score = sum(n * word.score for n, word in zip(letters, words, strict=True)) / sum(letters)
        start, end = words[0].start, words[-1].end
    else:  # more symbols than frames: the whole segment is the best that can be said
        score = float(span.logits.softmax(dim=-1).amax(dim=-1).mean())
        start = offset
        end = min(end_of_audio, offset + len(span.logits) * model.frame_seconds)
        words = []
    limit = math.floor(end_of_audio * 1000) / 1000
    return _Segment(
        text=text,
        start=_to_milliseconds(start, limit),
        end=_to_milliseconds(end, limit),
        score=round(score, 4),
        words=[
            word.as_dict(lambda seconds: _to_milliseconds(seconds, limit), characters=True)
            for word in words
        ],
        alternatives=found.alternatives,
    )


def _to_milliseconds(seconds: float, limit: float) -> float:
    return min(round(seconds, 3), limit)


def _as_dict(segment_id: int, segment: _Segment, config: TranscribeConfig) -> dict[str, Any]:
    as_dict: dict[str, Any] = {
        "id": segment_id,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "score": segment.score,
    }
    if config.character_timestamps:
        as_dict["words"] = segment.words
    elif config.word_timestamps:
        as_dict["words"] = [
            {key: value for key, value in word.items() if key != "characters"}
            for word in segment.words
        ]
    if segment.alternatives:
        as_dict["alternatives"] = [
            {"text": " ".join(text.split()), "score": round(score, 2)}
            for text, score in segment.alternatives
        ]
    return as_dict
