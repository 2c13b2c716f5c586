"""Minimal pairs differ in one thing, and every cut is faded in both of them."""

from __future__ import annotations

import numpy as np
import pytest

from tools.benchmark_surprise import KINDS, join

RATE = 16000


@pytest.fixture
def waves():
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, n * RATE).astype(np.float32) for n in (3, 4)]


@pytest.mark.parametrize("kind", KINDS)
def test_both_of_a_pair_have_as_much_audio(kind, waves):
    natural, changed = KINDS[kind](*waves, RATE, np.random.default_rng(1))
    assert sum(map(len, natural)) == sum(map(len, changed))
    assert any(
        (a.shape != b.shape) or (a != b).any() for a, b in zip(natural, changed, strict=True)
    )


def test_joins_are_faded_and_nothing_else_is_touched():
    joined = join([np.ones(400, np.float32), np.ones(400, np.float32)], RATE)
    assert len(joined) == 800
    assert joined[399] == joined[400] == 0
    assert (joined[:320] == 1).all() and (joined[480:] == 1).all()


def test_a_reversed_segment_has_the_samples_of_the_natural_one(waves):
    (natural,), (changed,) = KINDS["reversed"](*waves, RATE, np.random.default_rng(1))
    assert sorted(np.abs(natural)) == pytest.approx(sorted(np.abs(changed)), abs=1e-6)
    same = natural == changed
    assert same[: RATE // 2].all() and same[-RATE // 2 :].all()
    assert (~same).sum() == pytest.approx(RATE / 2, abs=2 * 80)


def test_a_splice_exchanges_halves_and_keeps_their_sum(waves):
    natural, changed = KINDS["other speaker"](*waves, RATE, np.random.default_rng(1))
    energy = [sum(float(np.square(w).sum()) for w in side) for side in (natural, changed)]
    assert energy[0] == pytest.approx(energy[1], rel=1e-5)
