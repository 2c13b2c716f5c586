"""Span masks hide the share they are told to, in spans, and depend on the key alone."""

from __future__ import annotations

import numpy as np
import pytest

from speechjepa.nn.masking import span_mask, span_masks


def draw(num_frames: int, prob: float, length: int, seed: int = 0, **options) -> np.ndarray:
    return span_mask(
        num_frames,
        mask_prob=prob,
        mask_length=length,
        generator=np.random.default_rng(seed),
        **options,
    )


def runs(mask: np.ndarray) -> list[int]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return (edges[1::2] - edges[::2]).tolist()


@pytest.mark.parametrize("frames, length", [(500, 10), (150, 10), (80, 5)])
@pytest.mark.parametrize("prob", [0.2, 0.5, 0.8])
def test_the_expected_share_is_hidden(frames, length, prob):
    share = np.mean([draw(frames, prob, length, seed) for seed in range(600)])
    assert share == pytest.approx(prob, abs=0.03)


def test_every_span_is_at_least_as_long_as_asked():
    for seed in range(50):
        assert min(runs(draw(200, 0.4, 10, seed))) >= 10


@pytest.mark.parametrize("prob", [0.01, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("frames", [3, 4, 5, 11, 20, 200])
def test_some_frame_is_hidden_and_enough_stay_visible(frames, prob):
    for seed in range(20):
        mask = draw(frames, prob, 10, seed)
        assert mask.shape == (frames,)
        assert mask.sum() >= 1
        assert (~mask).sum() >= 2
        assert (~draw(frames, prob, 10, seed, min_visible=3)).sum() >= min(3, frames)


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_too_short_an_utterance_is_left_visible(frames):
    assert not draw(frames, 0.5, 10).any()


def masks(lengths, keys, **changes):
    settings = {"mask_prob": 0.5, "mask_length": 10} | changes
    return span_masks(np.array(lengths), np.array(keys), **settings)


def test_a_mask_depends_on_the_key_and_not_on_the_batch():
    together = masks([300, 120, 80], [5, 6, 7], num_masks=2)
    alone = masks([120], [6], num_masks=2)
    assert together.shape == (6, 300)
    assert np.array_equal(together[2:4, :120], alone)
    assert not np.array_equal(masks([120], [8]), masks([120], [6]))


def test_padding_is_never_hidden():
    assert not masks([300, 120], [5, 6])[1, 120:].any()


def test_the_masks_of_one_utterance_differ():
    first, second = masks([300], [5], num_masks=2)
    assert not np.array_equal(first, second)


def test_no_utterances_give_no_masks():
    assert masks([], []).shape == (0, 0)


def test_the_largest_keys_are_taken():
    assert masks([100], [2**62 - 1]).any()
