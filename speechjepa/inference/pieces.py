"""Hear the speech of a long recording again, in pieces as long as the model was trained on.

A model fine-tuned on utterances of a few seconds makes far more errors in a window of 30 s. Shorter
windows are no way out: one that holds background noise only, normalised on its own, is heard as
speech. So the long windows say where speech is; that speech is cut at its pauses, and each piece is
encoded again on its own. Its logits take the place of the first ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from speechjepa.inference.segment import SegmentConfig, Segmenter, SegmentLogits
from speechjepa.inference.stitch import Stretch, encode_batch, frames_per_hop

if TYPE_CHECKING:
    from speechjepa.inference.transcribe import TranscriptionModel


@dataclass(frozen=True, kw_only=True)
class PieceConfig:
    """How speech is divided into pieces, in seconds."""

    target_seconds: float
    """From this length on a piece ends at the next `pause_seconds` with a word boundary."""
    max_seconds: float
    """A longer piece is cut at the longest pause inside it that has a word boundary; a recording
    that is no longer than this is left as it is."""
    pause_seconds: float = 0.24
    long_pause_seconds: float = 0.4
    """A pause this long always ends a piece and parts words, with or without a word boundary."""
    margin_seconds: float = 0.12
    """Silence kept on both sides of a piece; at most half of the pause."""
    context_seconds: float = 0.5
    """Heard, but not kept, on a side where the speech goes on without a pause."""
    least_kept: float = 0.5
    """A piece in which fewer characters are heard than this part of what the window gave keeps its
    first logits: a weak model falls silent in fragments of what it was trained on."""

    @classmethod
    def of_utterances(cls, seconds: float) -> PieceConfig:
        """Return the pieces for a model fine-tuned on utterances of this mean length (seconds)."""
        return cls(target_seconds=0.4 * seconds, max_seconds=2.0 * seconds)


def hear_pieces(
    model: TranscriptionModel,
    stretches: Iterable[Stretch],
    config: PieceConfig,
    *,
    batch_samples: int,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (samples done, logits (T, V)) with those of pieces in place of the first ones.

    Holds the longest piece and one stretch, however long the recording is.

    Args:
        model: A fine-tuned model.
        stretches: Consecutive, as long windows gave them.
        config: How speech is divided.
        batch_samples: Pieces are encoded together up to this length, padding included (samples).
    """
    pieces = _Pieces(model, config, batch_samples)
    end = 0
    for stretch in stretches:
        end = stretch.end
        yield end, pieces.push(stretch)
    yield end, pieces.finish()


@dataclass(frozen=True)
class _Piece:
    """Frames [start, end) of the recording, encoded with what is in [heard_from, heard_to)."""

    start: int
    end: int
    heard_from: int
    heard_to: int


class _Pieces:
    """The part of a recording that is not final yet, addressed by frame of the recording."""

    def __init__(self, model: TranscriptionModel, config: PieceConfig, batch_samples: int) -> None:
        vocabulary = model.vocabulary
        self._model = model
        self._batch_samples = batch_samples
        self._per_hop = frames_per_hop(model)
        self._blank_id = vocabulary.blank_id
        self._boundary_id = vocabulary.word_boundary_id
        self._planner = Segmenter(
            frame_seconds=model.frame_seconds,
            blank_id=self._blank_id,
            word_boundary_id=self._boundary_id,
            config=SegmentConfig(
                long_pause_seconds=config.long_pause_seconds,
                pause_seconds=config.pause_seconds,
                target_seconds=config.target_seconds,
                max_seconds=config.max_seconds,
                margin_seconds=config.margin_seconds,
            ),
        )
        self._margin = round(config.margin_seconds / model.frame_seconds)
        self._least_kept = config.least_kept
        self._context = round(config.context_seconds / model.frame_seconds)
        self._long_pause = round(config.long_pause_seconds / model.frame_seconds)
        self._longest_samples = round(config.max_seconds * model.sample_rate)
        # What a piece may look at on either side of its own frames.
        self._around = max(self._context, self._long_pause) + self._per_hop
        self._logits = torch.zeros(0, len(vocabulary))  # frames [self._logits_from, ...)
        self._logits_from = 0
        self._samples = np.zeros(0, np.float32)  # of frames [self._heard_from, ...)
        self._symbols = np.zeros(0, np.int64)  # the same frames' best ones in the long windows
        self._heard_from = 0
        self._num_samples = 0
        self._num_frames = 0
        self._planned: list[tuple[int, int]] = []

    def push(self, stretch: Stretch) -> Tensor:
        """Take the next stretch and return the frames (T, V) that are final."""
        self._num_samples = stretch.end
        self._num_frames += len(stretch.logits)
        self._logits = torch.cat([self._logits, stretch.logits])
        self._samples = np.concatenate([self._samples, stretch.samples])
        self._symbols = np.concatenate([self._symbols, stretch.logits.argmax(dim=-1).numpy()])
        self._plan(self._planner.push(stretch.logits))
        if self._num_samples <= self._longest_samples:
            return self._logits[:0]
        ready = [span for span in self._planned if span[1] + self._around <= self._num_frames]
        self._planned = self._planned[len(ready) :]
        self._encode(ready)
        # A word boundary may yet be written one frame before the next piece.
        end = min([self._planner.kept_from, *(start for start, _ in self._planned)]) - 1
        return self._release(end)

    def finish(self) -> Tensor:
        """Return the frames that are left (T, V)."""
        self._plan(self._planner.finish())
        if self._num_samples > self._longest_samples:
            self._encode(self._planned)
        return self._release(self._num_frames)

    def _plan(self, segments: Sequence[SegmentLogits]) -> None:
        self._planned += [(s.first_frame, s.first_frame + len(s.logits)) for s in segments]

    def _release(self, end: int) -> Tensor:
        count = max(0, end - self._logits_from)
        final, self._logits = self._logits[:count], self._logits[count:].clone()
        self._logits_from += count
        hops = (self._logits_from - self._around - self._heard_from) // self._per_hop
        if hops > 0:
            self._symbols = self._symbols[hops * self._per_hop :].copy()
            self._samples = self._samples[hops * self._model.hop :].copy()
            self._heard_from += hops * self._per_hop
        return final

    def _encode(self, spans: Sequence[tuple[int, int]]) -> None:
        """Put the logits of pieces in place of the first ones."""
        pieces = [self._with_surroundings(start, end) for start, end in spans]
        heard: dict[_Piece, Tensor] = {}
        for batch in self._batches(pieces):
            waveforms = [self._waveform(piece) for piece in batch]
            heard.update(zip(batch, encode_batch(self._model, waveforms), strict=True))
        for piece in pieces:
            logits = heard[piece][piece.start - piece.heard_from :][: piece.end - piece.start]
            first = piece.start - self._logits_from
            now = self._logits[first : first + len(logits)]
            if self._num_characters(logits) < self._least_kept * self._num_characters(now):
                continue
            now[:] = logits
            self._part_words_before(piece)

    def _with_surroundings(self, start: int, end: int) -> _Piece:
        inside = self._is_silent()[start - self._heard_from : end - self._heard_from]
        before = 0 if _run(inside) >= self._margin else self._context
        after = 0 if _run(inside[::-1]) >= self._margin else self._context
        per_hop = self._per_hop
        return _Piece(
            start=start,
            end=end,
            heard_from=max(self._heard_from, start - before) // per_hop * per_hop,
            # One hop more, since some encoders give no frame for the last one.
            heard_to=(-(-(end + after) // per_hop) + 1) * per_hop,
        )

    def _is_silent(self) -> np.ndarray:
        is_silent = self._symbols == self._blank_id
        if self._boundary_id is not None:
            is_silent |= self._symbols == self._boundary_id
        return is_silent

    def _batches(self, pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
        batch: list[_Piece] = []
        for piece in sorted(pieces, key=lambda piece: piece.heard_from - piece.heard_to):
            longest = batch[0] if batch else piece
            samples = (longest.heard_to - longest.heard_from) // self._per_hop * self._model.hop
            if batch and samples * (len(batch) + 1) > self._batch_samples:
                yield batch
                batch = []
            batch.append(piece)
        if batch:
            yield batch

    def _num_characters(self, logits: Tensor) -> int:
        """Return how many symbols the best path through logits (T, V) writes."""
        symbols = logits.argmax(dim=-1).unique_consecutive()
        return int((symbols != self._blank_id).sum())

    def _waveform(self, piece: _Piece) -> np.ndarray:
        first, end = (
            (frame - self._heard_from) // self._per_hop * self._model.hop
            for frame in (piece.heard_from, piece.heard_to)
        )
        return self._samples[first:end]

    def _part_words_before(self, piece: _Piece) -> None:
        """Write a word boundary before a piece where the long windows heard one, or a long pause.

        Encoded alone, neither it nor the piece before it need have one.
        """
        seam = piece.start - self._heard_from
        before, after = self._symbols[:seam][::-1], self._symbols[seam:]
        is_silent = self._is_silent()
        num_before, num_after = _run(is_silent[:seam][::-1]), _run(is_silent[seam:])
        pause = np.concatenate([before[:num_before], after[:num_after]])
        if self._boundary_id is None or num_before == seam == piece.start:
            return  # nothing comes before it
        if self._boundary_id not in pause and len(pause) < self._long_pause:
            return
        first = piece.start - self._logits_from
        now = self._logits.argmax(dim=-1).numpy()
        at = first - 1 if first and now[first - 1] == self._blank_id else first
        is_mark = now == self._boundary_id
        silent = is_mark | (now == self._blank_id)
        begin = first - _run(silent[:first][::-1])
        stop = first + _run(silent[first:])
        if is_mark[begin:stop].any() or not silent[at]:
            return
        frame = self._logits[at]
        frame[self._boundary_id], frame[now[at]] = (
            frame[now[at]].item(),
            frame[self._boundary_id].item(),
        )


def _run(is_silent: np.ndarray) -> int:
    """Return how many frames are silent from the first one on."""
    return len(is_silent) if is_silent.all() else int(np.argmin(is_silent))
