"""Batches are bounded, complete, the same after a resume, and shared out between processes."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speechjepa.data.batches import BatchPlan, CachedItems, batch_loader, collate
from speechjepa.data.cache import build_cache
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError

RATE = 16000
LENGTHS = (np.random.default_rng(0).uniform(1.0, 12.0, 400) * RATE).astype(np.int64)


def plan(lengths=LENGTHS, seconds=60.0, **options) -> BatchPlan:
    return BatchPlan(lengths, seconds, **options)


def items_of(batches) -> list[int]:
    return [item for batch in batches for item, _ in batch]


def first(source, count: int) -> list:
    return list(islice(iter(source), count))


def test_no_batch_is_longer_than_the_bound_with_its_padding():
    for batch in plan().epoch(0):
        assert len(batch) * LENGTHS[batch].max() <= 60.0 * RATE


def test_every_item_comes_once_per_epoch():
    for epoch in range(3):
        assert sorted(chain(*plan().epoch(epoch))) == list(range(400))


def test_epochs_follow_one_another_without_a_gap():
    number = len(plan().epoch(0))
    stream = first(plan(), number + 1)
    assert sorted(items_of(stream[:number])) == list(range(400))
    assert [item for item, _ in stream[number]] == plan().epoch(1)[0]


def test_epochs_and_seeds_differ_and_each_is_repeatable():
    assert plan().epoch(0) != plan().epoch(1)
    assert plan().epoch(0) != plan(seed=1).epoch(0)
    assert plan(seed=5).epoch(3) == plan(seed=5).epoch(3)


def test_little_is_padding():
    padded = sum(len(batch) * int(LENGTHS[batch].max()) for batch in plan().epoch(0))
    assert LENGTHS.sum() / padded > 0.9
    random = np.random.default_rng(0).permutation(400).reshape(-1, 8)
    assert LENGTHS.sum() / (LENGTHS[random].max(axis=1).sum() * 8) < 0.7  # what sorting saves


def test_batches_are_not_in_the_order_of_length():
    longest = [LENGTHS[batch].max() for batch in plan().epoch(0)]
    assert longest != sorted(longest)


@pytest.mark.parametrize("start", [1, 7, 200])
def test_a_run_that_resumes_sees_what_it_would_have_seen(start):
    whole = first(plan(), start + 60)
    assert first(plan(start=start), 60) == whole[start:]


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_every_batch_without_overlap(world_size):
    whole = first(plan(), 80)
    shares = [first(plan(rank=r, world_size=world_size), 80) for r in range(world_size)]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert len(batch) >= world_size
        assert sorted(chain(*parts)) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_process_without_an_item_repeats_one_so_that_all_take_every_step():
    alone = np.array([10 * RATE])
    shares = [first(plan(alone, 10.0, rank=r, world_size=2), 3) for r in range(2)]
    assert shares[0] == shares[1]
    assert [item for item, _ in shares[0][0]] == [0]


def test_an_item_beyond_the_bound_is_a_batch_by_itself():
    lengths = np.array([2, 3, 100, 2, 3]) * RATE
    batches = plan(lengths, 6.0).epoch(0)
    assert [2] in batches
    assert sorted(chain(*batches)) == [0, 1, 2, 3, 4]
    assert all(len(b) * lengths[b].max() <= 6.0 * RATE for b in batches if b != [2])


def test_a_bound_that_fits_exactly_is_used():
    assert len(plan(np.full(6, 2 * RATE), 6.0).epoch(0)) == 2


def test_keys_name_the_item_and_the_visit():
    number = len(plan().epoch(0))
    keys = [key for batch in first(plan(), 3 * number) for _, key in batch]
    assert len(set(keys)) == len(keys)
    assert min(keys) >= 0 and max(keys) < 2**63
    other = [key for batch in first(plan(seed=1), number) for _, key in batch]
    assert not set(other) & set(keys)


def test_the_key_of_an_item_does_not_depend_on_its_batch():
    wide, narrow = (
        dict(chain(*first(p, len(p.epoch(0))))) for p in (plan(seconds=120), plan(seconds=30))
    )
    assert wide == narrow


def test_a_plan_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one item"):
        plan(np.zeros(0, np.int64))


def cached(folder: Path, *seconds: float):
    folder.mkdir()
    utterances = []
    for i, length in enumerate(seconds):
        ramp = np.linspace(-0.9, 0.9, round(length * RATE))
        soundfile.write(folder / f"{i}.wav", ramp, RATE, subtype="PCM_16")
        utterances.append(Utterance(id=str(i), audio_path=folder / f"{i}.wav"))
    return build_cache(utterances, folder.parent / "cache")


def test_long_utterances_are_cut_into_equal_pieces_that_lose_nothing(tmp_path):
    cache = cached(tmp_path / "audio", 1.0, 2.5)
    items = CachedItems(cache, max_seconds=1.0)
    assert len(items) == 4
    assert items.lengths.max() <= RATE
    assert np.ptp(items.lengths[1:]) <= 1
    joined = np.concatenate([items[(i, 0)][0] for i in (1, 2, 3)])
    assert np.array_equal(joined, cache.waveform(1))


def test_an_utterance_just_longer_than_the_bound_is_cut_in_two(tmp_path):
    items = CachedItems(cached(tmp_path / "audio", 1.0 + 1 / RATE), max_seconds=1.0)
    assert sorted(items.lengths.tolist()) == [8000, 8001]


def test_short_utterances_are_left_out(tmp_path):
    items = CachedItems(cached(tmp_path / "audio", 0.3, 1.0), min_seconds=0.5)
    assert items.lengths.tolist() == [RATE]


def test_nothing_long_enough_is_an_error_that_says_what_to_change(tmp_path):
    cache = cached(tmp_path / "audio", 0.3, 0.4)
    with pytest.raises(DataError, match="none of 2 utterances lasts at least 0.5 s.*min_seconds"):
        CachedItems(cache, min_seconds=0.5)


def test_a_batch_is_padded_with_zeros_to_its_longest():
    batch = collate([(np.ones(3, np.float32), 7, 70), (np.ones(5, np.float32), 8, 2**62 - 1)])
    assert batch.waveform.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.lengths.tolist() == [3, 5]
    assert batch.items.tolist() == [7, 8]
    assert batch.keys.tolist() == [70, 2**62 - 1]
    assert batch.to(torch.device("cpu")).waveform.dtype == torch.float32


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_loader_follows_the_plan(tmp_path, num_workers):
    items = CachedItems(cached(tmp_path / "audio", 0.3, 0.4, 0.5, 0.6))
    order = plan(items.lengths, 1.0, start=1)
    expected = first(order, 3)
    loaded = first(batch_loader(items, order, num_workers), 3)
    for batch, requests in zip(loaded, expected, strict=True):
        assert list(zip(batch.items.tolist(), batch.keys.tolist(), strict=True)) == requests
        for row, item in enumerate(batch.items.tolist()):
            samples = batch.waveform[row, : batch.lengths[row]].numpy()
            assert np.array_equal(samples, items.cache.waveform(item))


def test_the_fullest_batch_is_the_one_with_the_most_audio():
    lengths = np.array([16000, 16000, 48000, 8000])
    plan = BatchPlan(lengths, 3.0)
    assert [item for item, _ in plan.fullest()] == [2]
    assert plan.fullest() in [batch for batch, _ in zip(plan, range(4), strict=False)]


def test_an_item_longer_than_a_batch_is_not_what_a_step_is_measured_on():
    plan = BatchPlan(np.array([16000, 16000, 480000, 8000]), 3.0)
    assert 2 not in [item for item, _ in plan.fullest()]
    assert [item for item, _ in BatchPlan(np.array([480000]), 3.0).fullest()] == [0]
