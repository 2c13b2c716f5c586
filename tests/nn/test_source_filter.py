"""Pulses and filters: the pitch that was asked for, the level that was asked for."""

from __future__ import annotations

import math

import torch

from speechjepa.nn.source_filter import HOP, OVERHANG, SourceFilter, pulse_train


def test_pulses_have_the_pitch_and_every_harmonic_the_same_power() -> None:
    pulses, _ = pulse_train(torch.full((1, 100), 200.0))
    assert abs(float(pulses.square().mean()) - 1.0) < 0.01
    power = torch.fft.rfft(pulses[0]).abs().square()  # one second: bins of 1 Hz
    harmonics = power[200:7601:200]
    assert float(harmonics.sum() / power.sum()) > 0.999
    assert float(harmonics.max() / harmonics.min()) < 1.01


def test_pulses_go_on_where_they_were_left() -> None:
    hertz = torch.linspace(90, 240, 40)[None]
    whole, end = pulse_train(hertz)
    first, phase = pulse_train(hertz[:, :13])
    second, last = pulse_train(hertz[:, 13:], phase)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, atol=1e-4, rtol=0)
    assert abs(math.remainder(float(end - last), 2 * math.pi)) < 1e-6


def test_an_envelope_of_one_level_scales_its_source() -> None:
    torch.manual_seed(0)
    module = SourceFilter(40)
    noise = torch.randn(1, 50 * HOP + 2 * OVERHANG)
    pulses = torch.randn(1, 50 * HOP + 2 * OVERHANG)
    envelopes = torch.full((1, 50, 2, 40), -30.0)  # nepers: nothing
    envelopes[:, :, 1] = math.log(0.25)
    found = module(pulses, noise, envelopes)
    assert found.shape == noise.shape
    whole = slice(2 * OVERHANG, -2 * OVERHANG)  # where four windows overlap
    torch.testing.assert_close(found[0, whole], 0.25 * noise[0, whole], atol=1e-4, rtol=0)


def test_a_band_shapes_its_own_frequencies() -> None:
    module = SourceFilter(20)
    torch.manual_seed(0)
    noise = torch.randn(1, 100 * HOP + 2 * OVERHANG)
    envelopes = torch.full((1, 100, 2, 20), -12.0)
    envelopes[:, :, 1, 10] = 0.0  # a band in the middle of the mel scale
    power = torch.fft.rfft(module(torch.zeros_like(noise), noise, envelopes)[0]).abs().square()
    centre = int(power.argmax()) * 8000 / (len(power) - 1)
    mel = 2595 * math.log10(1 + centre / 700)
    top = 2595 * math.log10(1 + 8000 / 700)
    assert abs(mel / top - 11 / 21) < 0.06


def test_the_bands_add_up_to_one_in_every_bin() -> None:
    total = SourceFilter(120).interpolation.sum(dim=0)
    torch.testing.assert_close(total, torch.ones_like(total))
