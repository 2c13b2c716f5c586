"""Transcribe a stream of audio while it comes in.

An encoder that was fine-tuned with `streaming` runs chunk by chunk with its past in a state of
bounded size, each chunk with a look at the next one. Any other model, published checkpoints too,
hears the last seconds again with every chunk: the same words sooner or later, at many times the
work.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from speechjepa.audio.voice import VADS, make_detector
from speechjepa.errors import ConfigError, ModelError
from speechjepa.inference.confidence import stored_map
from speechjepa.inference.decoding import DECODERS, Decoder
from speechjepa.inference.spoken_language import resolve_language
from speechjepa.inference.stream_gate import Gate, Passed
from speechjepa.inference.stream_sources import ChunkSource, LogitSource, Piece, WindowSource
from speechjepa.inference.stream_words import Found, StreamWords, WordsConfig
from speechjepa.models.speech_encoder import SpeechEncoder
from speechjepa.nn.transformer import Chunks

if TYPE_CHECKING:
    from speechjepa.inference.model import SpeechModel

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 8.0
"""What a model that cannot stream hears at most with every chunk (seconds); less where it was
fine-tuned on much shorter utterances."""

LOOK_AHEAD_SECONDS = 0.16
"""What a chunk sees of the audio after it, where the encoder learned to stream (seconds)."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a stream has to say at one point; `str` gives the words that are newly final."""

    final: list[dict[str, Any]]
    """Words newly final, {"word", "start", "end", "score"} each: seconds from the start of the
    stream, score as `transcribe` gives it. They are never revised."""
    partial: list[dict[str, Any]]
    """The present guess of the words after the last final one; all of it may change."""
    seconds: float
    """Audio heard so far (seconds)."""
    endpoint: bool = False
    """A pause follows the final words: a line may end here."""

    @property
    def text(self) -> str:
        """The words newly final."""
        return " ".join(word["word"] for word in self.final)

    @property
    def partial_text(self) -> str:
        """The words guessed after them."""
        return " ".join(word["word"] for word in self.partial)

    def __str__(self) -> str:
        return self.text


class Stream:
    """One stream of audio being transcribed; see `open_stream`.

    Memory is bounded, and the work for each chunk does not grow, however long the stream goes on.
    """

    def __init__(
        self,
        gate: Gate,
        source: LogitSource,
        words: StreamWords,
        *,
        sample_rate: int,
        language: str | None,
    ) -> None:
        self.language = language
        """Code of the language, None if the model does not say."""
        self.sample_rate = sample_rate
        """Of the samples it takes (Hz)."""
        self._gate = gate
        self._source = source
        self._words = words
        self._num_samples = 0
        self._is_over = False

    def feed(self, samples: np.ndarray | Tensor) -> list[Heard]:
        """Take the next samples and return what was heard, one entry per chunk and per pause.

        Args:
            samples: (S,) floating-point in [-1, 1] at `sample_rate`; any length.

        Raises:
            ModelError: The samples are not such numbers, or the stream is finished.
        """
        samples = self._check(samples)
        self._num_samples += len(samples)
        return [heard for passed in self._gate.push(samples) for heard in self._listen(passed)]

    def finish(self) -> Heard:
        """Return the words that are left; all become final, and the stream is over."""
        if self._is_over:
            raise ModelError("this stream is finished; open another one with `model.stream()`")
        self._is_over = True
        said = [heard for passed in self._gate.finish() for heard in self._listen(passed)]
        said += [heard for piece in self._source.finish() for heard in self._hear(piece)]
        nothing = torch.zeros(0, self._words.num_symbols)
        left = self._words.push(nothing, nothing, last=True)
        final = [word for heard in said for word in heard.final]
        final += [self._timed(word) for found in left for word in found.final]
        seconds = self._num_samples / self.sample_rate
        return Heard(final=final, partial=[], seconds=seconds, endpoint=True)

    def _listen(self, passed: Passed) -> list[Heard]:
        heard = [h for piece in self._source.push(passed.samples) for h in self._hear(piece)]
        if passed.closes:
            heard += [h for piece in self._source.pause() for h in self._hear(piece)]
            seconds = self._num_samples / self.sample_rate
            heard += [self._said(found, seconds) for found in self._words.pause()]
            self._gate.count(self._source.covered)
            self._gate.forget(self._words.first_seconds)
        return heard

    def _hear(self, piece: Piece) -> list[Heard]:
        seconds = self._gate.seconds(piece.samples / self.sample_rate)
        found = self._words.push(piece.logits, piece.tentative, nearly_sure=piece.nearly_sure)
        return [self._said(each, seconds) for each in found]

    def _said(self, found: Found, seconds: float) -> Heard:
        return Heard(
            final=[self._timed(word) for word in found.final],
            partial=[self._timed(word) for word in found.partial],
            seconds=seconds,
            endpoint=found.endpoint,
        )

    def _timed(self, word: dict[str, Any]) -> dict[str, Any]:
        """Return a word with its times in the stream, not in what of it was let through."""
        start = self._gate.seconds(word["start"])
        end = start + word["end"] - word["start"]
        return word | {"start": round(start, 3), "end": round(end, 3)}

    def _check(self, samples: np.ndarray | Tensor) -> Tensor:
        if self._is_over:
            raise ModelError("this stream is finished; open another one with `model.stream()`")
        given = samples.detach().cpu().numpy() if isinstance(samples, Tensor) else samples
        array = np.asarray(given)
        if array.ndim != 1 or array.dtype.kind != "f":
            raise ModelError(
                "`samples` must be (S,) float32 in [-1, 1], "
                f"but is {array.shape} {array.dtype} instead"
            )
        if not np.isfinite(array).all():
            raise ModelError("`samples` must be finite, but holds NaN or infinite values")
        # A copy: a caller may fill its buffer again, and other machines' bytes are in other order.
        return torch.from_numpy(np.array(array, np.float32))


def open_stream(
    model: SpeechModel,
    *,
    language: str | None = None,
    chunk_seconds: float = 0.32,
    look_ahead_seconds: float | None = None,
    decoder: Decoder = "auto",
    vad: Literal["auto", "silero", "energy", "none"] = "auto",
    words: WordsConfig | None = None,
) -> Stream:
    """Return a stream to feed with audio.

    Args:
        model: A fine-tuned model, from `speechjepa.load`.
        language: Code of the spoken language, one of the model's; None = its only one.
        chunk_seconds: Audio that is encoded at once (seconds): short chunks give words sooner, long
            ones fewer errors.
        look_ahead_seconds: Audio after a chunk that is heard before it is encoded, and encoded
            again with the next (seconds): fewer errors, words so much later. None = 0.16 where the
            model was fine-tuned with `streaming`; no other model has one to choose.
        decoder: Best path, or beam search with the bundle's language model; auto = beam if there
            is one.
        vad: What tells speech from the noise in long pauses, which is not listened to: silero or
            none; auto = the model's own.
        words: When words become final.

    Raises:
        ModelError: The model has no CTC head, does not know the language, or has no language model
            although beam search was asked for.
        ConfigError: It was not trained with chunks of this length, or cannot look ahead; or `vad`
            is for recordings only.
    """
    if decoder not in DECODERS:
        raise ConfigError(f"`decoder` must be one of {DECODERS}, but is {decoder!r}.")
    if not 0.02 <= chunk_seconds <= 30:
        raise ConfigError(
            f"`chunk_seconds` must be between 0.02 and 30, but is {chunk_seconds} instead"
        )
    if vad not in VADS:
        raise ConfigError(f"`vad` must be silero, none or auto, but is {vad!r} instead")
    vad = model.vad if vad == "auto" else vad
    if vad == "energy":  # by then what was said is gone
        raise ConfigError(
            "levels are judged ten seconds at a time, too late for a stream: `vad` must be silero "
            "or none"
        )
    language = resolve_language(language, model.languages)
    search = None if decoder == "greedy" else model.beam_search
    if search is None and decoder == "beam":
        raise ModelError("this model carries no language model for beam search: decode greedily")
    config = words or WordsConfig()
    stream_words = StreamWords(
        model.vocabulary,
        search,
        frame_seconds=model.frame_seconds,
        config=config,
        score_map=stored_map(model.calibration, use_lm=search is not None),
    )
    detector = None if vad == "none" else make_detector(vad)
    source = _source(
        model,
        stream_words,
        chunk_seconds,
        look_ahead_seconds,
        config,
        any_level=detector is not None,
    )
    gate = Gate(detector, model.sample_rate)
    return Stream(gate, source, stream_words, sample_rate=model.sample_rate, language=language)


def _source(
    model: SpeechModel,
    words: StreamWords,
    chunk_seconds: float,
    look_ahead_seconds: float | None,
    config: WordsConfig,
    *,
    any_level: bool,
) -> LogitSource:
    chunks = streaming_chunks(model, chunk_seconds)
    look_ahead = look_ahead_frames(model, look_ahead_seconds)
    if chunks is not None:
        assert model.bundle.ctc is not None
        return ChunkSource(model, model.bundle.ctc, chunks, look_ahead, any_level=any_level)
    _say_that_windows_are_heard_again()
    window = WINDOW_SECONDS
    if model.utterance_seconds is not None:
        window = min(window, max(4.0, 2 * model.utterance_seconds))
    return WindowSource(
        model,
        words.silent_frames,
        chunk_seconds=chunk_seconds,
        window_seconds=window,
        pause_seconds=config.pause_seconds,
    )


def look_ahead_frames(model: Any, seconds: float | None) -> int:
    """Return the frames that a chunk looks ahead to in so many seconds; None = as by default.

    Raises:
        ConfigError: The model was trained with chunks of one length or none, or too far.
    """
    if seconds is not None and not 0 <= seconds <= 1:
        raise ConfigError(f"`look_ahead_seconds` must be between 0 and 1, but is {seconds} instead")
    encoder = getattr(model, "encoder", None)
    is_able = isinstance(encoder, SpeechEncoder) and encoder.config.streaming is not None
    if not is_able:
        if seconds:
            raise ConfigError(
                "`look_ahead_seconds` is for a model that was fine-tuned with `streaming`, which "
                "this one was not: leave it out"
            )
        return 0
    seconds = LOOK_AHEAD_SECONDS if seconds is None else seconds
    return round(seconds * model.sample_rate / model.hop)


@cache
def _say_that_windows_are_heard_again() -> None:
    """Log it, once in the life of a program."""
    logger.info(
        "this model was not trained to stream: the last seconds are heard again with every chunk, "
        "which takes more time. Fine-tuning with `finetune.streaming` avoids it"
    )


def streaming_chunks(model: Any, chunk_seconds: float) -> Chunks | None:
    """Return the chunks in which a model's encoder streams; None if it did not learn to.

    Raises:
        ConfigError: It was not trained with chunks of this length.
    """
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, SpeechEncoder):
        return None
    if encoder.config.streaming is not None:
        return encoder.config.streaming.chunks(chunk_seconds, model.sample_rate / model.hop)
    is_chunked = encoder.chunks is not None and encoder.chunks.left is not None
    return encoder.chunks if is_chunked and encoder.config.normalization == "global" else None
