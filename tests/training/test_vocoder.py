"""Training of a vocoder: it learns, goes on after an interruption, and refuses too little."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from speechjepa.errors import ConfigError, DataError, ModelError
from speechjepa.models.vocoder import UnitVocoder, VocoderConfig, load_vocoder
from speechjepa.training import vocoder as module
from speechjepa.training.vocoder import VocoderTraining, train_vocoder

SIZES = VocoderConfig(num_units=3, width=16, unit_layers=1, layers=1, num_bands=20)
SHORT = {"batch_size": 2, "piece_seconds": 0.5, "warmup_steps": 1, "minutes": 5.0}


def _recordings(count: int = 4, frames: int = 400):
    """Return silence, a buzz and noise in turns, and their units."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(count):
        units = np.repeat(draw.integers(0, 3, frames // 5), 5)
        kinds = np.repeat(units, 640)
        time = np.arange(len(kinds)) / 16000
        buzz = sum(np.cos(2 * np.pi * 150 * k * time) / k for k in range(1, 9))
        wave = (
            0.003 * draw.standard_normal(len(kinds))
            + 0.1 * buzz * (kinds == 1)
            + 0.05 * draw.standard_normal(len(kinds)) * (kinds == 2)
        )
        found.append((torch.from_numpy(units)[None], wave.astype(np.float32)))
    return found


def test_the_loss_falls_and_the_vocoder_is_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "REPORT_STEPS", 10)
    training = VocoderTraining(steps=40, learning_rate=1e-2, **SHORT)
    vocoder = train_vocoder(_recordings(), SIZES, training, tmp_path)
    with open(tmp_path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [10, 20, 30, 40]
    assert float(rows[-1]["stft"]) < 0.8 * float(rows[0]["stft"])
    assert abs(2**vocoder.config.mean_pitch - 150) < 3
    assert not (tmp_path / "checkpoint.pt").exists()
    units = torch.zeros(1, 30, dtype=torch.int64)
    again = load_vocoder(tmp_path)
    torch.testing.assert_close(again.controls(units).pitch, vocoder.controls(units).pitch)


def test_units_at_100_hz_are_trained_on_with_context_as_long(tmp_path) -> None:
    fine = [(units.repeat_interleave(4, dim=1), wave) for units, wave in _recordings()]
    sizes = replace(SIZES, frame_rate=100)
    assert sizes.context / 100 == pytest.approx(SIZES.context / 25, abs=0.04)
    vocoder = train_vocoder(fine, sizes, VocoderTraining(steps=1, **SHORT), tmp_path)
    units = torch.zeros(1, 2 * sizes.context + 5, dtype=torch.int64)
    assert vocoder.controls(units).pitch.shape == (1, 5)


def test_an_interrupted_training_goes_on_to_the_same_end(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_SAVE_SECONDS", 0.0)
    training = VocoderTraining(steps=6, **SHORT)
    whole = train_vocoder(_recordings(), SIZES, training, tmp_path / "whole")
    losses, calls = module.training_losses, []

    def stop_after_three(*arguments):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(1)
        return losses(*arguments)

    monkeypatch.setattr(module, "training_losses", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        train_vocoder(_recordings(), SIZES, training, tmp_path / "parts")
    monkeypatch.setattr(module, "training_losses", losses)
    with pytest.raises(ModelError, match="made with other settings"):
        train_vocoder(_recordings(), SIZES, VocoderTraining(steps=7, **SHORT), tmp_path / "parts")
    parts = train_vocoder(_recordings(), SIZES, training, tmp_path / "parts")
    for name, tensor in whole.state_dict().items():
        # The learning rate also follows the clock, which is not the same: by a few millionths.
        torch.testing.assert_close(parts.state_dict()[name], tensor, atol=1e-4, rtol=0)


def test_too_little_audio_or_no_voice_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match=r"60 s of speech or more to be trained.*16\.0 s"):
        train_vocoder(_recordings(count=1), SIZES, VocoderTraining(), tmp_path)
    silent = [(units, 0 * wave) for units, wave in _recordings()]
    with pytest.raises(DataError, match="is this speech"):
        train_vocoder(silent, SIZES, VocoderTraining(), tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VocoderTraining(minutes=0), "`minutes` must be more than 0"),
        (lambda: VocoderTraining(piece_seconds=0.1), "`piece_seconds` must be at least 0.5"),
        (lambda: VocoderConfig(frame_rate=30), "must divide 100, but is 30"),
        (lambda: VocoderConfig(kernel_size=4), "must be odd, but is 4"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_frame_hears_its_context_and_nothing_else() -> None:
    torch.manual_seed(0)
    sizes = VocoderConfig(num_units=3, width=16, unit_layers=2, layers=2, num_bands=20)
    vocoder = UnitVocoder(sizes).eval()
    for parameter in vocoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    context = sizes.context
    units = torch.zeros(1, 4 * context + 1, dtype=torch.int64)
    changed = units.clone()
    changed[0, 2 * context] = 1  # what the middle one of the 2 C + 1 frames stands on
    with torch.no_grad():
        moved = (vocoder.controls(changed).pitch - vocoder.controls(units).pitch).abs()[0]
    assert moved.shape == ((2 * context + 1) * sizes.upsample,)
    middle = moved[context * sizes.upsample : (context + 1) * sizes.upsample]
    assert (middle > 1e-6).all()
    wider = torch.zeros(1, 4 * context + 5, dtype=torch.int64)
    farther = wider.clone()
    farther[0, 0] = farther[0, -1] = 1  # beyond the reach of the frames in the middle
    with torch.no_grad():
        difference = vocoder.controls(farther).pitch - vocoder.controls(wider).pitch
    up = sizes.upsample
    assert not difference[0, 2 * up : -2 * up].any()
