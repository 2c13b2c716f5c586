"""Batches bounded in seconds of audio, in an order that a resumed or a parallel run repeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from speechjepa.data.cache import AudioCache
from speechjepa.errors import DataError


@dataclass(frozen=True)
class Batch:
    """Padded utterances."""

    waveform: Tensor
    """(B, S) float32 in [-1, 1]."""
    lengths: Tensor
    """(B,) int64 samples."""
    items: Tensor
    """(B,) int64, the item's place in the data set."""
    keys: Tensor
    """(B,) int64 that name the item and the visit: seeds for masks and augmentation."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on a device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


class CachedItems(Dataset):
    """Stretches of cached utterances.

    Args:
        cache: Decoded audio.
        max_seconds: Longer utterances are cut into equal pieces of at most this; None = never.
        min_seconds: Shorter ones are left out.

    Raises:
        DataError: Nothing is left.
    """

    def __init__(
        self, cache: AudioCache, max_seconds: float | None = None, min_seconds: float = 0.0
    ) -> None:
        self.cache = cache
        pieces: list[tuple[int, int, int]] = []
        for index, length in enumerate(cache.lengths):
            if length < min_seconds * cache.sample_rate:
                continue
            longest = length if max_seconds is None else int(max_seconds * cache.sample_rate)
            parts = -(-int(length) // max(1, int(longest)))
            edges = np.linspace(0, length, parts + 1).astype(np.int64)
            pieces.extend(
                (index, int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)
            )
        if not pieces:
            raise DataError(
                f"none of {len(cache)} utterances lasts at least {min_seconds:g} s: there is "
                "nothing to train on; lower `min_seconds` or use longer recordings"
            )
        self.pieces = pieces
        self.lengths = np.array([stop - start for _, start, stop in pieces], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, request: tuple[int, int]) -> tuple[np.ndarray, int, int]:
        item, key = request
        index, start, stop = self.pieces[item]
        return self.cache.waveform(index, start, stop), item, key


class BatchPlan:
    """Which items make batch 0, 1, 2, ... of a run, for ever.

    Items are shuffled every epoch, sorted by length within large pools so that little is padded,
    and cut into batches of at most `max_seconds` padded audio, which are shuffled in turn. The
    plan is a pure function of (lengths, seed): a run that resumes at batch k, or splits every
    batch over several processes, sees the same batches. An item longer than `max_seconds` is a
    batch by itself. A process for which a batch has no item left repeats the batch's first item,
    since every process has to take every step.

    Args:
        lengths: (N,) samples of each item.
        max_seconds: Padded seconds per batch, over all processes.
        sample_rate: Hz.
        seed: Of the order.
        start: First batch to give.
        rank: This process takes items rank, rank + world_size, ... of each batch.
        world_size: Number of processes.
        pool_batches: Batches' worth of items that are sorted together.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        max_seconds: float,
        *,
        sample_rate: int = 16000,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pool_batches: int = 50,
    ) -> None:
        if not len(lengths):
            raise ValueError("a batch plan needs at least one item")
        self.lengths = lengths
        self.max_samples = int(max_seconds * sample_rate)
        self.seed = seed
        self.start = start
        self.rank = rank
        self.world_size = world_size
        self.pool_size = max(
            1, int(pool_batches * self.max_samples / max(1.0, float(lengths.mean())))
        )

    def epoch(self, epoch: int) -> list[list[int]]:
        """Return the batches of one epoch, each a list of items."""
        generator = np.random.default_rng((self.seed, epoch))
        order = generator.permutation(len(self.lengths))
        batches: list[list[int]] = []
        for first in range(0, len(order), self.pool_size):
            pool = order[first : first + self.pool_size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batch: list[int] = []
            for item in pool:
                # Sorted by length, so the newcomer is the longest and sets the padding.
                if batch and (len(batch) + 1) * self.lengths[item] > self.max_samples:
                    batches.append(batch)
                    batch = []
                batch.append(int(item))
            batches.append(batch)
        return [batches[i] for i in generator.permutation(len(batches))]

    def fullest(self) -> list[tuple[int, int]]:
        """Return the batch of the first epoch that holds the most audio, to measure a step on.

        A single item that is longer than a batch may be is no measure of the others.
        """
        batches = self.epoch(0)
        seconds = [int(self.lengths[items].sum()) for items in batches]
        usual = [s if s <= self.max_samples else 0 for s in seconds]
        batch = batches[int(np.argmax(usual if any(usual) else seconds))]
        return [(item, _key(self.seed, 0, item)) for item in batch]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        number, epoch = 0, 0
        while True:
            batches = self.epoch(epoch)
            for batch in batches[max(0, self.start - number) :]:
                requests = [(item, _key(self.seed, epoch, item)) for item in batch]
                mine = requests[self.rank :: self.world_size]
                yield mine or requests[:1]
            number += len(batches)
            epoch += 1


def collate(items: Sequence[tuple[np.ndarray, int, int]]) -> Batch:
    """Pad items to the longest of them."""
    lengths = torch.tensor([len(samples) for samples, _, _ in items])
    waveform = torch.zeros(len(items), int(lengths.max()))
    for row, (samples, _, _) in enumerate(items):
        waveform[row, : len(samples)] = torch.from_numpy(samples)
    return Batch(
        waveform,
        lengths,
        torch.tensor([item for _, item, _ in items]),
        torch.tensor([key for _, _, key in items]),
    )


def batch_loader(items: CachedItems, plan: Any, num_workers: int = 0) -> DataLoader:
    """Return a loader of `Batch` that follows a plan (any iterable of lists of requests)."""
    return DataLoader(items, batch_sampler=plan, collate_fn=collate, num_workers=num_workers)


def _key(seed: int, epoch: int, item: int) -> int:
    words = np.random.SeedSequence((seed, epoch, item)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(2))
