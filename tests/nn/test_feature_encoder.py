"""The front end halves the rate, sees as far ahead as it says, and takes any length."""

from __future__ import annotations

import pytest
import torch

from speechjepa.nn.feature_encoder import LogMelFeatureEncoder

RATES = [50, 25]


def front_end(rate: int, normalization="global", pitch=False) -> LogMelFeatureEncoder:
    torch.manual_seed(0)
    return LogMelFeatureEncoder(16, rate, normalization=normalization, pitch=pitch).eval()


@pytest.mark.parametrize("rate", RATES)
def test_a_second_gives_as_many_frames_as_the_rate_says(rate):
    encoder = front_end(rate)
    features, lengths = encoder(torch.randn(1, 16000), torch.tensor([16000]))
    assert features.shape == (1, rate, 16)
    assert lengths.tolist() == [rate]
    assert encoder.hop * rate == 16000


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("pitch", [False, True])
def test_output_lengths_are_those_of_the_output(rate, pitch):
    encoder = front_end(rate, pitch=pitch)
    for samples in (0, 159, 160, 319, 320, 639, 640, 641, 960, 1279, 1280, 4999):
        features, lengths = encoder(torch.randn(1, samples), torch.tensor([samples]))
        assert lengths.tolist() == encoder.output_lengths(torch.tensor([samples])).tolist()
        assert lengths.item() == samples // encoder.hop
        assert features.shape[1] == max(1, lengths.item())
        assert features.isfinite().all()


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("normalization", ["utterance", "global"])
@pytest.mark.parametrize("pitch", [False, True])
def test_padding_changes_nothing(rate, normalization, pitch):
    encoder = front_end(rate, normalization, pitch)
    for samples in (5000, 5120, 5300, 5460, 5599, 150):
        short = torch.randn(1, samples)
        alone, lengths = encoder(short, torch.tensor([samples]))
        padded = torch.cat([short, 9 * torch.ones(1, 3000)], dim=1)
        batch = torch.cat([padded, torch.randn(1, samples + 3000)])
        together, _ = encoder(batch, torch.tensor([samples, samples + 3000]))
        valid = int(lengths)
        assert torch.allclose(together[0, :valid], alone[0, :valid], atol=1e-4)


@pytest.mark.parametrize(
    "rate, pitch, look_ahead",
    [(50, False, 280), (25, False, 600), (50, True, 576), (25, True, 600)],
)
def test_a_frame_sees_its_look_ahead_and_not_a_sample_more(rate, pitch, look_ahead):
    encoder = front_end(rate, pitch=pitch)
    assert encoder.look_ahead == look_ahead
    waveform = torch.randn(1, 16000)
    if look_ahead == 576:  # what decides is the pitch, of which noise has none
        waveform = 0.1 * waveform + torch.sin(
            torch.arange(16000) * (0.05 + torch.arange(16000) / 1e6)
        )
    size = torch.tensor([16000])
    end = 5 * encoder.hop + look_ahead  # of what frames 0 .. 4 see
    beyond, inside = waveform.clone(), waveform.clone()
    beyond[:, end:] = 0.0
    decides = 240 if look_ahead == 576 else 40  # windows fade to zero towards their ends
    inside[:, end - decides :] = 0.0
    before, _ = encoder(waveform, size)
    assert torch.equal(encoder(beyond, size)[0][:, :5], before[:, :5])
    change = (encoder(inside, size)[0][:, 4] - before[:, 4]).abs().max()
    assert change > 1e-4


def test_another_rate_is_refused():
    with pytest.raises(ValueError, match="must be 25 or 50, but is 100"):
        LogMelFeatureEncoder(16, 100)
