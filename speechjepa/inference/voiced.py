"""Logits of a recording from its speech alone: chunks are encoded, silence is written as blanks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from speechjepa.inference.chunks import Chunk
from speechjepa.inference.stitch import encode_batch, frames_per_hop

if TYPE_CHECKING:
    from speechjepa.inference.transcribe import TranscriptionModel
    from speechjepa.text.vocabulary import Vocabulary

_CERTAIN = 20.0  # logit of the symbol that silence is written with
_ROUND_BATCHES = 8  # that are encoded, sorted by length, before the first of them is given


def chunk_logits(
    model: TranscriptionModel, chunks: Iterable[Chunk], *, batch_samples: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield (samples done, logits (T, V)) of chunks, in their order.

    The first chunk is encoded at once, so that its words come early; then several batches together,
    each of chunks of like length.

    Args:
        model: A fine-tuned model.
        chunks: Consecutive, from the start of a recording.
        batch_samples: Of one batch, padding included; a longer chunk is a batch of its own.
    """
    waiting: list[Chunk] = []
    samples, enough = 0, 1
    for chunk in chunks:
        waiting.append(chunk)
        samples += 0 if chunk.samples is None else len(chunk.samples)
        if samples >= enough or not samples:
            yield from _in_order(model, waiting, batch_samples)
            if samples:
                enough = min(2 * max(enough, batch_samples // 2), _ROUND_BATCHES * batch_samples)
            waiting, samples = [], 0
    yield from _in_order(model, waiting, batch_samples)


def encode_chunks(
    model: TranscriptionModel, chunks: Sequence[Chunk], batch_samples: int
) -> list[Tensor]:
    """Return the logits (T, V) of each chunk, from batches of like length."""
    by_length = sorted(
        (i for i, chunk in enumerate(chunks) if chunk.samples is not None),
        key=lambda i: -_size(chunks[i]),
    )
    logits: dict[int, Tensor] = {}
    batch: list[int] = []
    for i in by_length:
        if batch and _size(chunks[batch[0]]) * (len(batch) + 1) > batch_samples:
            logits.update(_encode(model, chunks, batch))
            batch = []
        batch.append(i)
    if batch:
        logits.update(_encode(model, chunks, batch))
    return [
        logits[i] if i in logits else _silence(model, chunk, is_first=chunk.start == 0)
        for i, chunk in enumerate(chunks)
    ]


def _in_order(
    model: TranscriptionModel, chunks: Sequence[Chunk], batch_samples: int
) -> Iterator[tuple[int, Tensor]]:
    encoded = encode_chunks(model, chunks, batch_samples)
    yield from ((chunk.end, logits) for chunk, logits in zip(chunks, encoded, strict=True))


def _size(chunk: Chunk) -> int:
    assert chunk.samples is not None
    return len(chunk.samples)


def _encode(
    model: TranscriptionModel, chunks: Sequence[Chunk], batch: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    per_hop = frames_per_hop(model)
    waveforms = [samples for i in batch if (samples := chunks[i].samples) is not None]
    for i, logits in zip(batch, encode_batch(model, waveforms), strict=True):
        chunk = chunks[i]
        first, end = (
            (sample - chunk.heard_from) // model.hop * per_hop
            for sample in (chunk.start, chunk.end)
        )
        if chunk.end % model.hop:  # the end of the recording
            kept = logits[first:].clone()
        else:
            kept = _lengthened(logits[first:end], end - first, model.vocabulary.blank_id)
        if chunk.parts_words:
            _part_words(kept, model.vocabulary)
        yield i, kept


def _lengthened(logits: Tensor, count: int, blank_id: int) -> Tensor:
    """Return (count, V): some encoders give no frame for the last samples of a recording."""
    more = torch.zeros(count - len(logits), logits.shape[1])
    more[:, blank_id] = _CERTAIN
    return torch.cat([logits, more])


def _part_words(logits: Tensor, vocabulary: Vocabulary) -> None:
    """Write a word boundary at the start of logits (T, V) that have none before their first letter.

    A model of single words, and one of sentences that ends without a boundary, would have the last
    word of the chunk before go on here.
    """
    symbols = logits.argmax(dim=-1).tolist()
    boundary_id, blank_id = vocabulary.word_boundary_id, vocabulary.blank_id
    first = next((symbol for symbol in symbols if symbol != blank_id), None)
    if boundary_id is None or first in (None, boundary_id) or symbols[0] != blank_id:
        return
    logits[0, boundary_id], logits[0, blank_id] = (
        logits[0, blank_id].item(),
        logits[0, boundary_id].item(),
    )


def _silence(model: TranscriptionModel, chunk: Chunk, *, is_first: bool) -> Tensor:
    """Return logits (T, V) of blanks, with a word boundary in them unless nothing came before."""
    vocabulary = model.vocabulary
    count = (chunk.end // model.hop - chunk.start // model.hop) * frames_per_hop(model)
    logits = torch.zeros(count, len(vocabulary))
    logits[:, vocabulary.blank_id] = _CERTAIN
    if vocabulary.word_boundary_id is not None and count and not is_first:
        middle = min(count // 2, 1)
        logits[middle, vocabulary.blank_id] = 0.0
        logits[middle, vocabulary.word_boundary_id] = _CERTAIN
    return logits
