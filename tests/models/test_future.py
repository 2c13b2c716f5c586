"""What comes next is predicted from the past alone, and told on the scale of what is usual."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from speechjepa.cli.info import describe
from speechjepa.errors import ConfigError, DataError, ModelError
from speechjepa.inference.model import load
from speechjepa.inference.surprise import LEAD_SECONDS, surprise, surprise_of_file
from speechjepa.models.bundle import load_bundle, load_init
from speechjepa.models.future import FutureConfig, FuturePredictor, gaussian_energy
from speechjepa.workflow.recipe import build_recipe
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


@torch.no_grad()
@pytest.mark.parametrize("wave", [torch.zeros(RATE), torch.ones(RATE), torch.zeros(639)])
def test_silence_has_a_finite_energy_and_less_than_a_frame_none(future, wave):
    energy = future.energy(wave)
    assert torch.isfinite(energy).all() and len(energy) == len(wave) // 640


@pytest.mark.parametrize("wave", [torch.zeros(RATE), tones(3200, torch.Generator())])
def test_nothing_is_learnt_of_silence_or_of_less_than_there_are_channels(future, wave):
    with pytest.raises(DataError, match="silent, or too short"):
        future.fit([wave])


@pytest.mark.parametrize(
    "sizes, said", [({"num_channels": 321}, "at most 320"), ({"width": 0}, "more than 0")]
)
def test_impossible_sizes_are_refused(sizes, said):
    with pytest.raises(ConfigError, match=said):
        FutureConfig(**sizes)


def test_pretraining_for_it_leaves_the_encoder_and_gives_a_bundle_that_is_surprised(tmp_path):
    config = replace(test_pretrain.CONFIG, objective="future", future=SIZES)
    begun = test_pretrain.run(tmp_path, replace(test_pretrain.CONFIG, max_steps=1), "begun")
    folder = test_pretrain.run(tmp_path, config, init=begun, encoder=None)
    bundle = load_bundle(folder)
    before, after = (load_bundle(one).encoder.state_dict() for one in (begun, folder))
    assert all(torch.equal(before[name], after[name]) for name in before)
    energies = test_pretrain.column(tmp_path / "run", "loss/energy")
    assert bundle.future is not None and bundle.future.predictor.config == SIZES and energies
    assert not (tmp_path / "run" / "snapshot.npz").exists()
    with pytest.raises(ModelError, match="made for `speechjepa surprise`"):
        load_init(folder)
    model = load(folder)
    assert any(line.startswith("future ") for line in describe(model.info()))
    (wave,) = speech(2.0)
    found = surprise(model, wave, offset=3)
    assert found.times == pytest.approx(3 + (np.arange(50) + 0.5) * 0.04)
    torch.testing.assert_close(torch.from_numpy(found.error), bundle.future.predictor.energy(wave))


def test_it_learns_which_way_time_runs():
    """Bursts that rise at once and fall slowly, played backwards, are a surprise after training."""
    torch.manual_seed(0)
    made = FuturePredictor(replace(SIZES, width=24))
    decay = torch.exp(-torch.arange(6400) / 1600)
    noise = torch.randn(20, 10 * 6400)
    waves = list(noise * decay.repeat(10))
    made.fit(waves)
    optimizer = torch.optim.AdamW(made.parameters(), 1e-2)
    batch, lengths = torch.stack(waves[:16]), torch.full((16,), 64000)
    for _ in range(60):
        frames, _ = made.frames(batch, lengths)
        means, log_variances, _ = made.predict(frames)
        loss = gaussian_energy(frames, means, log_variances).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for wave in waves[16:]:
            assert made.energy(wave).mean() + 1 < made.energy(wave.flip(0)).mean()


@pytest.mark.parametrize("entry", [[1], {"width": "wide"}, {"width": 8, "num_channels": 999}])
def test_a_damaged_entry_is_said_to_be(tmp_path, entry):
    folder = test_pretrain.run(
        tmp_path, replace(test_pretrain.CONFIG, objective="future", future=SIZES, max_steps=1)
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "future": entry}))
    with pytest.raises(ModelError, match=r"config\.json.*damaged"):
        load_bundle(folder)


def test_a_recipe_does_not_fine_tune_what_was_made_for_surprise(tmp_path):
    content = {
        "name": "x",
        "language": "en",
        "data": {"pool": [str(tmp_path)], "train": str(tmp_path)},
        "pretrain": {"objective": "future"},
    }
    assert build_recipe({**content, "finetune": None}).pretrain.objective == "future"
    with pytest.raises(ConfigError, match="nothing to fine-tune"):
        build_recipe(content)


def test_a_long_file_is_heard_in_pieces_that_overlap(tmp_path):
    bundle = test_pretrain.run(
        tmp_path, replace(test_pretrain.CONFIG, objective="future", future=SIZES, max_steps=1)
    )
    model = load(bundle)
    for seconds, pieces in ((20.0, 2), (33.337, 3)):
        (wave,) = speech(seconds)
        soundfile.write(tmp_path / "long.wav", wave.numpy(), RATE, subtype="FLOAT")
        found = surprise_of_file(model, tmp_path / "long.wav")
        steps = np.diff(found.times)
        assert (steps > 0.039).all() and (steps < 0.08).all() and (steps > 0.041).sum() < pieces
        assert found.times[-1] > seconds - 0.08
        begin = seconds * (pieces - 1) / pieces
        last = surprise(
            model, wave[int((begin - LEAD_SECONDS) * RATE) :], offset=begin - LEAD_SECONDS
        )
        new = last.times >= begin
        assert found.error[-new.sum() :] == pytest.approx(
            last.error[new], abs=0.1
        )  # cut elsewhere by a sample
