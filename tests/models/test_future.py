"""What comes next is predicted from the past alone, and told on the scale of what is usual."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from speechjepa.errors import ConfigError
from speechjepa.inference.model import load
from speechjepa.inference.surprise import LEAD_SECONDS, surprise, surprise_of_file
from speechjepa.models.bundle import load_bundle
from speechjepa.models.future import FutureConfig, FuturePredictor, gaussian_energy
from tests.training import test_pretrain
from tests.training.test_objectives import tones

RATE = 16000
SIZES = FutureConfig(width=12, num_layers=1, num_channels=6)


@pytest.fixture
def future():
    torch.manual_seed(0)
    made = FuturePredictor(SIZES).eval()
    made.fit(speech())
    return made


def speech(*seconds: float) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [tones(int(RATE * s), generator) for s in seconds or (3.0, 2.0, 4.0)]


def test_the_energy_of_a_gaussian():
    frames = torch.tensor([[[1.0, 2.0]]])
    means, log_variances = torch.tensor([[[0.0, 4.0]]]), torch.tensor([[[0.0, 2.0]]]).log()
    log_variances[0, 0, 0] = 0.0
    # (1 - 0)^2 / 1 + ln 1, and (2 - 4)^2 / 2 + ln 2, halved
    wanted = 0.5 * (1 + 2 + np.log(2))
    assert gaussian_energy(frames, means, log_variances).item() == pytest.approx(wanted)


@torch.no_grad()
def test_nothing_of_a_frame_or_what_follows_it_reaches_its_prediction(future):
    frames = torch.randn(1, 20, 6)
    other = frames.clone()
    other[:, 11:] += 1
    for one, two in zip(future.predict(frames), future.predict(other), strict=True):
        torch.testing.assert_close(one[:, :12], two[:, :12])
        assert not torch.allclose(one[:, 12:], two[:, 12:])


@torch.no_grad()
def test_frames_are_white_and_know_neither_padding_nor_level(future):
    waves = speech()
    alone = [future.frames(w[None], torch.tensor([len(w)]))[0][0] for w in waves]
    every = torch.cat(alone)
    assert every.mean(dim=0).numpy() == pytest.approx(0, abs=1e-3)
    assert torch.cov(every.T, correction=0).numpy() == pytest.approx(np.eye(6), abs=2e-2)
    lengths = torch.tensor([len(w) for w in waves])
    padded = torch.full((3, 5 * RATE), 0.7)
    for row, wave in enumerate(waves):
        padded[row, : len(wave)] = wave
    together, counts = future.frames(padded, lengths)
    assert counts.tolist() == [75, 50, 100]
    for row, frames in enumerate(alone):
        torch.testing.assert_close(together[row, : len(frames)], frames, atol=1e-4, rtol=1e-4)
        assert not together[row, len(frames) :].any()
    quiet = future.energy(0.1 * waves[0])
    torch.testing.assert_close(quiet, future.energy(waves[0]), atol=5e-2, rtol=5e-2)


@torch.no_grad()
def test_zero_is_what_is_usual_and_one_a_standard_deviation_more(future):
    future.fit_scale(speech())
    energies = torch.cat([future.energy(wave) for wave in speech()])
    assert energies.mean().item() == pytest.approx(0, abs=1e-4)
    assert energies.std(correction=0).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("wave", [torch.zeros(RATE), torch.zeros(100), torch.ones(RATE)])
def test_silence_has_a_finite_energy(future, wave):
    assert torch.isfinite(future.energy(wave)).all()
    future.fit([wave] if len(wave) > 640 else [torch.zeros(RATE)])
    assert torch.isfinite(future.energy(wave)).all()


def test_it_cannot_keep_more_than_there_is():
    with pytest.raises(ConfigError, match="at most 320"):
        FutureConfig(num_channels=321)


def test_pretraining_for_it_leaves_the_encoder_and_gives_a_bundle_that_is_surprised(tmp_path):
    config = replace(test_pretrain.CONFIG, objective="future", future=SIZES)
    begun = test_pretrain.run(tmp_path, replace(config, max_steps=1, learning_rate=0.0), "begun")
    folder = test_pretrain.run(tmp_path, config, init=begun, encoder=None)
    bundle = load_bundle(folder)
    before, after = (load_bundle(one).encoder.state_dict() for one in (begun, folder))
    assert all(torch.equal(before[name], after[name]) for name in before)
    energies = test_pretrain.column(tmp_path / "run", "loss/energy")
    assert bundle.future is not None and bundle.future.future.config == SIZES and energies
    model = load(folder)
    (wave,) = speech(2.0)
    found = surprise(model, wave, offset=3)
    assert found.times == pytest.approx(3 + (np.arange(50) + 0.5) * 0.04)
    torch.testing.assert_close(torch.from_numpy(found.error), bundle.future.future.energy(wave))


@torch.no_grad()
def test_a_long_file_is_heard_in_pieces_that_overlap(tmp_path, future):
    bundle = test_pretrain.run(
        tmp_path, replace(test_pretrain.CONFIG, objective="future", future=SIZES, max_steps=1)
    )
    (wave,) = speech(20.0)
    soundfile.write(tmp_path / "long.wav", wave.numpy(), RATE, subtype="FLOAT")
    model = load(bundle)
    found = surprise_of_file(model, tmp_path / "long.wav")
    assert found.times == pytest.approx((np.arange(500) + 0.5) * 0.04)
    second = wave[int((10 - LEAD_SECONDS) * RATE) :]
    wanted = surprise(model, second).error[int(LEAD_SECONDS / 0.04) :]
    assert found.error[250:] == pytest.approx(wanted, abs=1e-3)
