"""The pitch that an encoder hears is that of the voice, however loud and after whatever."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import pad

from speechjepa.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from speechjepa.nn.pitch_input import PitchInput

SMALL = SpeechEncoderConfig(width=32, num_layers=1, num_heads=2, ffn_width=48, frame_rate=25)


def voice(hertz: torch.Tensor) -> torch.Tensor:
    """Ten harmonics of a pitch that is given for each sample, weaker by 6 dB per octave."""
    phase = (2 * math.pi / 16000) * hertz.double().cumsum(0)
    return sum(torch.sin(n * phase) / n for n in range(1, 11)).float() * 0.1  # type: ignore[union-attr]


def readings(waveform: torch.Tensor) -> torch.Tensor:
    """Return what is read of a waveform (S,), (4, T)."""
    pitch = PitchInput(8, 4)
    seen: list[torch.Tensor] = []
    pitch.convolution.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pitch(waveform[None], torch.tensor([len(waveform)]))
    return seen[0][0, :, pitch.stride :]


@pytest.mark.parametrize("hertz", [65.0, 96.0, 150.0, 233.0, 400.0, 470.0])
def test_a_steady_voice_is_as_high_as_it_is(hertz):
    octaves, above, rise, voiced = readings(voice(torch.full((16000,), hertz)))[:, 10:-10]
    expected = math.log2(hertz / 150)
    assert (octaves / voiced / 2 - expected).abs().max() < 0.01
    assert voiced.min() > 0.9
    assert above.abs().max() < 0.05 and rise.abs().max() < 0.05


def test_what_rises_is_above_what_came_before():
    # An octave in two seconds: 0.01 octaves in 20 ms, of which 0.1 count as 1.
    hertz = 100.0 * 2.0 ** (torch.arange(32000) / 32000)
    octaves, above, rise, voiced = readings(voice(hertz))[:, 20:-20]
    assert (rise / voiced.square() - 0.1).abs().max() < 0.05
    # The mean of what was is half of what has been gained, in fours.
    gained = torch.arange(20, 180) / 200
    assert (above / voiced / 4 - gained / 2).abs().max() < 0.03
    assert octaves[-1] > octaves[0] + 1.5


def test_noise_and_silence_have_none():
    noise = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    assert readings(noise)[3].mean() < 0.1
    assert readings(torch.zeros(16000)).abs().max() < 0.01


@pytest.mark.parametrize("level", [1e-2, 10.0])
def test_how_loud_it_is_changes_nothing(level):
    waveform = voice(torch.full((8000,), 120.0))
    assert (readings(level * waveform) - readings(waveform)).abs().max() < 0.02


@pytest.mark.parametrize("hertz", [0.0, 20.0, 30.0, 40.0, 50.0])
def test_offsets_and_hum_are_no_voice(hertz):
    below = 0.3 * torch.cos(2 * math.pi * hertz / 16000 * torch.arange(16000))
    noise = 1e-3 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    assert readings(below + noise)[:, 10:-10].abs().max() < 0.1
    # A voice, and the pause after it, are as they are without.
    waveform = torch.cat([voice(torch.full((16000,), 120.0)), noise])
    change = readings(waveform + 0.1 * below.repeat(2)) - readings(waveform)
    assert change[:, 10:90].abs().max() < 0.05
    assert change[:, 115:-10].abs().max() < 0.25


def test_what_is_fainter_than_the_rounding_of_16_bits_is_no_voice():
    assert readings(2e-6 * voice(torch.full((16000,), 120.0)))[3].max() < 0.1


def test_a_voice_that_begins_does_not_rise():
    waveform = torch.cat([torch.zeros(8000), voice(torch.full((8000,), 300.0))])
    assert readings(waveform)[2].abs().max() < 0.2


def test_what_was_more_than_three_seconds_ago_is_forgotten():
    low, high = torch.full((16000,), 80.0), torch.full((64000,), 240.0)
    above = readings(voice(torch.cat([low, high])))[1]
    assert above[150] > 1.0
    assert above[-20:].abs().max() < 0.05


def test_an_encoder_that_gets_it_gives_what_it_gave():
    network = SpeechEncoder(SMALL).eval()
    waveform, lengths = (
        voice(torch.full((2, 16000), 120.0).flatten()).view(2, -1),
        torch.tensor([16000, 9000]),
    )
    before = network(waveform, lengths).features
    network.learn_pitch()
    assert network.config.pitch
    assert torch.equal(network(waveform, lengths).features, before)
    network.feature_encoder.pitch.projection.weight.data.normal_()
    assert not torch.allclose(network(waveform, lengths).features, before)
    weights = network.feature_encoder.pitch.projection.weight.clone()
    network.learn_pitch()  # once is enough
    assert torch.equal(network.feature_encoder.pitch.projection.weight, weights)


def test_the_windows_of_a_reading_are_where_it_is():
    # A click in the middle of the tenth 10 ms: the only power is in the six that see it.
    pitch = PitchInput(8, 4)
    waveform = torch.zeros(1, 3200)
    waveform[0, 10 * 160 + 80] = 1.0
    padded = pad(waveform, (pitch.margin, pitch.margin))
    lit = (pitch.score(padded)[0] + pitch.tilt).abs().amax(dim=1) > 1e-6
    first, last = lit.nonzero()[[0, -1], 0].tolist()
    assert (first + last) / 2 == 10 and last - first in (4, 6)
