"""Translate recordings of any length: utterance by utterance, into speech, units and text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechjepa.audio.files import stream_audio
from speechjepa.audio.voice import make_detector
from speechjepa.errors import ConfigError, ModelError
from speechjepa.inference.chunks import Chunk, ChunkConfig, speech_chunks
from speechjepa.inference.decoding import DECODERS, Decoder
from speechjepa.inference.retrieval import Match, Retrieval, embed, load_retrieval
from speechjepa.inference.translator import SpeechTranslator, Translated

if TYPE_CHECKING:
    from speechjepa.inference.model import SpeechModel

GAP_SECONDS = 0.1
"""Between two translations that would else overlap."""
MARGIN_SECONDS = 0.2
"""Silence kept on both sides of what is translated."""
JOINED_SECONDS = 0.3
"""Chunks that more silence parts are no pieces of one known utterance. (Of 13 prompts that were
cut, pieces were 0.08 s apart at most: what they are cut at belongs to them.)"""
MAX_WAITING = 8
"""Utterances that are translated at once."""
USUAL_SECONDS = 8.0
"""Of an utterance, where a bundle does not say how long those were that it was trained on."""


@dataclass(frozen=True, kw_only=True)
class TranslateConfig:
    """How a recording is translated."""

    head: str = "translator"
    """"translator", or "retrieval": the nearest known utterance."""
    beam: int = 5
    """Sequences that an autoregressive decoder keeps at every step."""
    decoder: Decoder = "auto"
    """"greedy": the likeliest token at each step; "beam": beam search, of CTC with the bundle's
    language model; "auto": beam search wherever that is possible."""
    vad: Literal["silero", "energy"] = "silero"
    """What finds speech: a small network, or the level above the noise."""

    def __post_init__(self) -> None:
        if self.head not in ("translator", "retrieval"):
            raise ConfigError(
                f"`head` must be translator or retrieval, but is {self.head!r} instead"
            )
        if self.vad not in ("silero", "energy"):
            raise ConfigError(
                f"`vad` must be silero or energy, but is {self.vad!r} instead"
                + ("; none is for streams (--stream)" if self.vad == "none" else "")
            )
        if self.decoder not in DECODERS:
            raise ConfigError(
                f"`decoder` must be one of {DECODERS}, but is {self.decoder!r} instead"
            )
        if self.beam < 1:
            raise ConfigError(f"`beam` must be at least 1, but is {self.beam} instead")


class FileTranslator:
    """Translates recordings with one model.

    Args:
        model: From `speechjepa.load`.
        config: Settings.
        translator: Of the model, if it was read before; its `beam` and decoder count then.

    Raises:
        ModelError: The model does not translate, knows no utterances to retrieve, or its language
            model cannot be read.
    """

    def __init__(
        self,
        model: SpeechModel,
        config: TranslateConfig | None = None,
        translator: SpeechTranslator | None = None,
    ) -> None:
        self.model = model
        self.config = config or TranslateConfig()
        self.translator = translator or SpeechTranslator(
            model, beam=self.config.beam, decoder=self.config.decoder
        )
        self._retrieval = None
        if self.config.head == "retrieval":
            self._retrieval = load_retrieval(self.translator.folder)
            if not self._retrieval.fits(model):
                raise ModelError(
                    f"{self.translator.folder}: its known utterances are of another encoder: run "
                    "the recipe again with --redo evaluate"
                )
        else:
            self.translator.load_language_model()

    @property
    def writes_text(self) -> bool:
        """Whether translations have text."""
        if self._retrieval is not None:
            return any(known.text for known in self._retrieval.known)
        return self.translator.writes_text

    def translate(
        self,
        path: str | PathLike[str],
        *,
        on_progress: Callable[[float], None] = lambda seconds: None,
        say: Callable[[int, NDArray[np.float32]], None] | None = None,
    ) -> dict[str, Any]:
        """Translate one file; see `translate`.

        Args:
            path: The file.
            on_progress: Called with the seconds of audio done so far.
            say: Called with the place (samples) and the samples (S,) of what is said, segment by
                segment, which is then not kept: `speech` is None, and memory does not grow with
                the recording.
        """
        duration = 0.0

        def heard() -> Iterator[NDArray[np.float32]]:
            nonlocal duration
            rate = self.model.sample_rate
            for block in stream_audio(path, sample_rate=rate, block_seconds=10.0):
                yield block
                duration += len(block) / rate
                on_progress(duration)

        segments: list[dict[str, Any]] = []
        speech = [np.zeros(0, np.float32)]
        said = 0
        for segment, spoken in self.segments(heard()):
            segments.append(segment)
            if not self._speaks:
                continue
            start = self.first_sample(segment)
            if say is not None:
                say(start, spoken)
                continue
            speech += [np.zeros(start - said, np.float32), spoken]
            said = start + len(spoken)
        whole = np.concatenate(speech) if self._speaks and say is None else None
        return {**self.result(segments, duration), "speech": whole}

    def segments(
        self, blocks: Iterable[NDArray[np.float32]]
    ) -> Iterator[tuple[dict[str, Any], NDArray[np.float32]]]:
        """Yield every segment as soon as it is translated, and what is said (S,) in it.

        Memory does not grow with the length of the recording. A translation is said when its
        source begins, or when the one before it is over: `first_sample` says where.

        Args:
            blocks: Consecutive pieces (S,) of the waveform at the model's rate.
        """
        chunks = speech_chunks(
            blocks,
            make_detector(self.config.vad),
            self._chunks(),
            hop=self.model.hop,
            rate=self.model.sample_rate,
        )
        said = 0
        for number, (heard, found, extra) in enumerate(self._translated(chunks)):
            segment = {"id": number, **self._described(heard, found), **extra}
            spoken = np.zeros(0, np.float32)
            if self._speaks:
                recorded = found.speech
                spoken = self.translator.speak(found.units) if recorded is None else recorded
                said = self._place(segment, len(spoken), said)
            yield segment, spoken

    def result(self, segments: list[dict[str, Any]], duration: float) -> dict[str, Any]:
        """Return what `translate` does of all segments, but for `speech`."""
        files = self.translator.files
        texts = [segment["text"] for segment in segments if segment.get("text")]
        return {
            "language": files.language,
            "source_language": files.source_language,
            "duration": round(duration, 3),
            "text": " ".join(texts) if self.writes_text or texts else None,
            "segments": segments,
            "sample_rate": self.translator.voice.sample_rate if self._speaks else None,
        }

    def first_sample(self, segment: dict[str, Any]) -> int:
        """Return where in the translation a segment is said (samples)."""
        return round(segment["speech_start"] * self.translator.voice.sample_rate)

    def _chunks(self) -> ChunkConfig:
        """Return how a recording is divided: into what is as long as the utterances of training."""
        return ChunkConfig(
            max_seconds=longest_seconds(self.model),
            target_seconds=usual_seconds(self.model),
            pause_seconds=0.6,
            long_pause_seconds=0.8,
            margin_seconds=MARGIN_SECONDS,
            context_seconds=0.0,
        )

    @property
    def _speaks(self) -> bool:
        return self.translator.has_voice

    def _described(self, heard: Sequence[Chunk], found: Translated) -> dict[str, Any]:
        rate = self.model.sample_rate
        segment: dict[str, Any] = {
            "start": round(heard[0].start / rate, 3),
            "end": round(heard[-1].end / rate, 3),
            "text": found.text,
        }
        if self.translator.files.kind == "units":
            segment["units"] = list(found.units)
            if found.times is not None:
                start = heard[0].heard_from / rate
                segment["times"] = [round(start + t, 3) for t in found.times]
        return segment

    def _place(self, segment: dict[str, Any], length: int, said: int) -> int:
        """Write down when so many samples are said, after so many; return where they end."""
        rate = self.translator.voice.sample_rate
        earliest = said + round(GAP_SECONDS * rate) if said else 0
        # In whole milliseconds, as it is written down.
        start = math.ceil(1000 * max(segment["start"], earliest / rate) - 1e-6) / 1000
        end = round(start * rate) + length
        segment["speech_start"] = start
        segment["speech_end"] = round(end / rate, 3)
        return end

    def _translated(
        self, chunks: Iterable[Chunk]
    ) -> Iterator[tuple[list[Chunk], Translated, dict[str, Any]]]:
        """Yield translations in their order, each with the chunks that it is of."""
        if self._retrieval is not None:
            yield from self._retrieved(self._retrieval, chunks)
            return
        waiting: list[Chunk] = []
        most = 1  # the first one alone, so that it comes early
        for chunk in itertools.chain(chunks, [None]):
            if chunk is not None and chunk.samples is not None:
                waiting.append(chunk)
            if len(waiting) < (most if chunk is not None else 1):
                continue
            waveforms = [one.samples for one in waiting if one.samples is not None]
            for one, found in zip(waiting, self.translator.translate(waveforms), strict=True):
                yield [one], found, {"score": round(found.score, 4)}
            waiting, most = [], min(2 * most, MAX_WAITING)

    def _retrieved(
        self, retrieval: Retrieval, chunks: Iterable[Chunk]
    ) -> Iterator[tuple[list[Chunk], Translated, dict[str, Any]]]:
        """Yield what is known of chunks, together where they are more like one known utterance.

        A known utterance may have pauses that a recording is cut at; chunks that a longer silence
        parts are never one.
        """
        most = round(JOINED_SECONDS * self.model.sample_rate)
        begun: tuple[list[Chunk], Tensor, Match] | None = None
        for chunk in chunks:
            if begun and chunk.samples is None and chunk.end - begun[0][-1].end > most:
                yield begun[0], *self._known(retrieval, begun[2])
                begun = None
            if chunk.samples is None:
                continue
            steps = embed(self.model, chunk.samples, retrieval.layer)
            alone = retrieval.find(steps)
            if begun:
                heard, earlier, had = begun
                if chunk.start - heard[-1].end <= most:
                    both = torch.cat([earlier, steps])
                    joined = retrieval.find(both)
                    apart = len(earlier) * had.confidence + len(steps) * alone.confidence
                    if joined.confidence > apart / len(both):
                        begun = ([*heard, chunk], both, joined)
                        continue
                yield heard, *self._known(retrieval, had)
            begun = ([chunk], steps, alone)
        if begun:
            yield begun[0], *self._known(retrieval, begun[2])

    def _known(self, retrieval: Retrieval, match: Match) -> tuple[Translated, dict[str, Any]]:
        known = match.known
        speech = retrieval.speech(known) if self._speaks else None
        extra = {"retrieved": known.id, "confidence": round(match.confidence, 4)}
        return Translated(units=known.units, text=known.text, speech=speech), extra


def usual_seconds(model: SpeechModel) -> float:
    """Return how long the utterances are that a model was trained to translate (seconds)."""
    said = model.bundle.training.get("translate", {})
    minutes, pairs = said.get("pair_minutes"), said.get("pairs")
    known = isinstance(minutes, int | float) and isinstance(pairs, int) and pairs > 0
    return 60 * minutes / pairs if known else USUAL_SECONDS


def longest_seconds(model: SpeechModel) -> float:
    """Return how much speech without a pause is translated at once at most (seconds)."""
    return max(12.0, 2.5 * usual_seconds(model))


def translate(model: SpeechModel, path: str | PathLike[str], **options: Any) -> dict[str, Any]:
    """Translate one audio file.

    Args:
        model: One that was trained to translate, from `speechjepa.load`.
        path: Audio (or video with sound) of any length.
        **options: Fields of `TranslateConfig`.

    Returns:
        {"language", "source_language", "duration", "text", "segments": [{"id", "start", "end",
        "text", "units", "times", "score", "speech_start", "speech_end"}], "speech",
        "sample_rate"}: times in seconds, `times` when each unit was written, `score` the mean
        probability of what is written; `speech` (S,) float32, empty where nothing is said. What a
        model does not have (text, units, a voice) is null or left out. With head="retrieval",
        `retrieved` and `confidence` (0 to 1) instead of `score`.

    Raises:
        AudioError: The file cannot be read.
        ModelError: The model does not translate.
    """
    return FileTranslator(model, TranslateConfig(**options)).translate(path)
