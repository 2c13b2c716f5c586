"""Run a model over transcribed utterances and keep its logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechjepa.audio.files import read_audio
from speechjepa.data.durations import with_duration
from speechjepa.data.readers.common import as_text
from speechjepa.data.utterance import Utterance
from speechjepa.errors import AudioError, ModelError
from speechjepa.inference.search import BeamSearch
from speechjepa.progress import track
from speechjepa.text.normalize import TextConfig, normalize_text
from speechjepa.text.vocabulary import Vocabulary


class CtcTranscriber(Protocol):
    """What is evaluated: `speechjepa.load` returns one."""

    @property
    def sample_rate(self) -> int:
        """Hz."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The symbols of the logits."""

    @property
    def text_config(self) -> TextConfig:
        """How references are normalised."""

    @property
    def path(self) -> Path | None:
        """The bundle's folder."""

    @property
    def beam_search(self) -> BeamSearch | None:
        """The tuned beam search, None without a language model."""

    @property
    def calibration(self) -> Mapping[str, Mapping[str, float]]:
        """What makes probabilities of the scores of words; empty = it was never fitted."""

    def logits(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, T, V) and lengths (B,) in frames."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An utterance that was left out, and why."""

    id: str
    audio_path: str
    reason: str


@dataclass(kw_only=True)
class Recognised:
    """Logits of the utterances that could be read, in their given order."""

    utterances: list[Utterance] = field(default_factory=list)
    """With their durations filled in."""
    logits: list[NDArray[np.float32]] = field(default_factory=list)
    """One (T, V) array per utterance."""
    references: list[str] = field(default_factory=list)
    """Normalised transcripts."""
    skipped: list[Skipped] = field(default_factory=list)
    num_unlabelled: int = 0
    """Utterances without a transcript."""


@torch.inference_mode()
def recognise(
    model: CtcTranscriber, utterances: Sequence[Utterance], *, batch_seconds: float = 120.0
) -> Recognised:
    """Compute the logits of every transcribed utterance, in batches of similar lengths.

    Args:
        model: A fine-tuned model.
        utterances: In any order; the result keeps it.
        batch_seconds: Audio in one batch, padding included (seconds); a longer utterance makes a
            batch of its own.
    """
    if not batch_seconds > 0:
        raise ValueError(f"`batch_seconds` must be positive, but is {batch_seconds} instead")
    result = Recognised()
    timed: list[tuple[int, Utterance]] = []
    for index, utterance in enumerate(utterances):
        if utterance.text is None:
            result.num_unlabelled += 1
            continue
        try:
            timed.append((index, with_duration(utterance)))
        except AudioError as error:
            result.skipped.append(skip(utterance, error))
    by_index: dict[int, tuple[Utterance, NDArray[np.float32]]] = {}
    batches = list(_batches(timed, batch_seconds))
    for batch in track(batches, "transcribing", len(batches)):
        kept, waveforms = [], []
        for index, utterance in batch:
            try:
                waveforms.append(read_utterance(utterance, model.sample_rate))
                kept.append((index, utterance))
            except AudioError as error:
                result.skipped.append(skip(utterance, error))
        for (index, utterance), logits in zip(kept, _logits(model, waveforms), strict=True):
            by_index[index] = (utterance, logits)
    for index in sorted(by_index):
        utterance, logits = by_index[index]
        result.utterances.append(utterance)
        result.logits.append(logits)
        result.references.append(normalize_text(utterance.text or "", model.text_config))
    return result


def skip(utterance: Utterance, error: AudioError) -> Skipped:
    """Return the record of an utterance that could not be read."""
    return Skipped(
        id=utterance.id, audio_path=as_text(str(utterance.audio_path)), reason=error.reason
    )


def _batches(
    timed: Iterable[tuple[int, Utterance]], batch_seconds: float
) -> Iterator[list[tuple[int, Utterance]]]:
    """Yield batches, the longest utterances first, so that running out of memory shows at once."""
    batch: list[tuple[int, Utterance]] = []
    longest = 0.0
    for item in sorted(timed, key=lambda pair: -(pair[1].duration or 0.0)):
        longest = longest if batch else item[1].duration or 0.0
        if batch and longest * (len(batch) + 1) > batch_seconds:
            yield batch
            batch, longest = [], item[1].duration or 0.0
        batch.append(item)
    if batch:
        yield batch


def read_utterance(utterance: Utterance, sample_rate: int) -> NDArray[np.float32]:
    """Return the waveform (S,) of an utterance, at least one sample; AudioError otherwise."""
    waveform = read_audio(
        utterance.audio_path,
        sample_rate=sample_rate,
        start=utterance.start,
        duration=utterance.duration,
    )
    if not len(waveform):
        raise AudioError(utterance.audio_path, "it holds no samples")
    return waveform


def _logits(
    model: CtcTranscriber, waveforms: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    if not waveforms:
        return []
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    padded = torch.zeros(len(waveforms), int(lengths.max()))  # (B, S)
    for row, waveform in enumerate(waveforms):
        padded[row, : len(waveform)] = torch.from_numpy(waveform)
    logits, frames = model.logits(padded, lengths)  # (B, T, V), (B,)
    logits = logits.float().cpu()
    rows = [logits[row, :length].numpy().copy() for row, length in enumerate(frames.tolist())]
    if any(np.isnan(row).any() for row in rows):
        raise ModelError("the model's logits hold NaN: its weights are broken; train it again")
    return rows
