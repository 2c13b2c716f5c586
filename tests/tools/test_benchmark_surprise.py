"""Minimal pairs differ in one thing, and every cut is faded in both of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from speechjepa.inference.model import SpeechModel
from speechjepa.inference.surprise import surprise
from speechjepa.models.bundle import Bundle, build_encoder
from speechjepa.models.future import FutureConfig, FutureModel
from speechjepa.models.speech_encoder import SpeechEncoderConfig
from tools.benchmark_surprise import KINDS, join, judge, untrained

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


def test_the_untrained_predictor_hears_the_same_frames_with_other_weights():
    torch.manual_seed(1)
    encoder = build_encoder(SpeechEncoderConfig(width=16, num_layers=1, num_heads=2, ffn_width=16))
    trained = FutureModel(encoder, FutureConfig(width=8, num_layers=1, num_channels=4)).eval()
    wave = torch.randn(32000)
    trained.predictor.fit([wave])
    model = SpeechModel(Bundle(encoder=encoder, future=trained))
    fresh = untrained(model, seed=0)
    lengths = torch.tensor([32000])
    frames = [m.bundle.future.predictor.frames(wave[None], lengths)[0] for m in (model, fresh)]
    torch.testing.assert_close(*frames)
    energies = [surprise(m, wave).error for m in (model, fresh)]
    assert not np.allclose(*energies)
    pair = ([wave.numpy()], [wave.numpy()])
    assert judge(model, [pair])["all frames"] == [0.5]  # the same on both sides is a tie
