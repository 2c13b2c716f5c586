"""Log-mel frames stand where they are said to stand, and padding never leaks into them."""

from __future__ import annotations

import math

import pytest
import torch

from speechjepa.audio.features import GLOBAL_MEAN, GLOBAL_STD, LogMel, UtterancePrior


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def all_of(waveform: torch.Tensor) -> torch.Tensor:
    return torch.full((waveform.shape[0],), waveform.shape[1])


@pytest.mark.parametrize("samples, frames", [(159, 0), (160, 1), (319, 1), (320, 2), (16000, 100)])
def test_every_whole_hop_gives_one_frame(samples, frames):
    waveform = noise(1, samples)
    mel, lengths = LogMel()(waveform, all_of(waveform))
    assert mel.shape == (1, frames, 80)
    assert lengths.tolist() == [frames]


def test_a_frame_covers_the_samples_from_120_before_it_to_280_after_its_start():
    waveform = torch.zeros(1, 3200)
    waveform[0, 1000] = 1.0
    mel, _ = LogMel(normalization="global")(waveform, all_of(waveform))
    heard = (mel[0] > mel[0].min() + 1e-4).any(dim=1).nonzero()[:, 0].tolist()
    # 160 t - 120 <= 1000 < 160 t + 280 holds for t = 5, 6 and 7 (which starts on the sample itself,
    # where the window is 0).
    assert heard == [5, 6]


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 4000.0])
def test_a_tone_is_loudest_in_the_channel_around_its_frequency(hertz):
    waveform = torch.sin(2 * math.pi * hertz * torch.arange(16000) / 16000)[None]
    mel, _ = LogMel(normalization="global")(waveform, all_of(waveform))
    lowest, highest = (2595 * math.log10(1 + f / 700) for f in (20.0, 8000.0))
    place = (2595 * math.log10(1 + hertz / 700) - lowest) / (highest - lowest) * 81 - 1
    assert abs(int(mel[0, 50].argmax()) - place) <= 1.0


def test_values_equal_torchaudio_where_the_definitions_coincide():
    from torchaudio.transforms import MelSpectrogram

    waveform = noise(1, 8000)
    theirs = MelSpectrogram(
        16000, n_fft=512, win_length=400, hop_length=160, f_min=20.0, n_mels=80, center=False
    )
    # They centre the window of 400 in 512 samples: 56 zeros on each side of it.
    power = theirs(torch.nn.functional.pad(waveform, (120 + 56, 120 + 56)))[0].T
    ours, _ = LogMel(normalization="global")(waveform, all_of(waveform))
    expected = (torch.log(power + 1e-6) - GLOBAL_MEAN) / GLOBAL_STD
    assert torch.allclose(ours[0], expected[:50], atol=1e-3)


@pytest.mark.parametrize(
    "normalization, prior_seconds", [("utterance", 0.0), ("utterance", 1.0), ("global", 0.0)]
)
def test_padding_changes_nothing_whatever_it_holds(normalization, prior_seconds):
    log_mel = LogMel(normalization=normalization, prior_seconds=prior_seconds)
    if log_mel.prior is not None:
        log_mel.prior.colour.copy_(torch.linspace(2.0, -2.0, 80))
    short = noise(1, 5000)
    padded = torch.cat([short, torch.full((1, 3000), 7.0)], dim=1)
    alone, _ = log_mel(short, torch.tensor([5000]))
    batch = torch.cat([padded, noise(1, 8000)])
    together, lengths = log_mel(batch, torch.tensor([5000, 8000]))
    assert lengths.tolist() == [31, 50]
    assert torch.allclose(together[0, :31], alone[0], atol=1e-5)
    assert (together[0, 31:] == 0).all()


def test_an_utterance_is_normalised_over_its_valid_frames():
    mel, lengths = LogMel()(noise(2, 8000), torch.tensor([8000, 4000]))
    for row, length in zip(mel, lengths.tolist(), strict=True):
        assert row[:length].mean(dim=0).abs().max() < 1e-4
        assert (row[:length].std(dim=0, correction=0) - 1).abs().max() < 0.05


def test_global_normalisation_shifts_with_loudness_and_utterance_normalisation_does_not():
    quiet = noise(1, 8000)
    per_utterance, fixed = LogMel(), LogMel(normalization="global")
    size = all_of(quiet)
    assert torch.allclose(
        per_utterance(quiet, size)[0], per_utterance(5 * quiet, size)[0], atol=0.01
    )
    louder = fixed(5 * quiet, size)[0] - fixed(quiet, size)[0]
    assert louder.mean().item() == pytest.approx(2 * math.log(5) / GLOBAL_STD, abs=0.01)


def test_silence_gives_finite_features():
    silence, size = torch.zeros(1, 1600), torch.tensor([1600])
    assert LogMel()(silence, size)[0].abs().max() < 1e-3
    knowing = LogMel(prior_seconds=1.0)
    knowing.prior.colour.fill_(3.0)
    assert knowing(silence, size)[0].abs().max() < 1.0  # in standard deviations of speech


def test_no_mel_channel_is_deaf():
    assert (LogMel().filters.sum(dim=0) > 0).all()


@pytest.mark.parametrize("samples", [0, 1, 100])
def test_less_than_a_frame_gives_no_frame(samples):
    mel, lengths = LogMel()(noise(2, samples), torch.tensor([samples, 0]))
    assert mel.shape == (2, 0, 80)
    assert lengths.tolist() == [0, 0]


def test_lower_precision_around_it_does_not_reach_it():
    waveform = noise(1, 3200)
    expected, _ = LogMel()(waveform, all_of(waveform))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = LogMel()(waveform, all_of(waveform))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_a_prior_is_the_colour_and_spread_of_speech_whatever_its_level():
    prior = UtterancePrior(2, 1.0)
    quiet = torch.tensor([[0.0, 2.0], [2.0, 4.0], [-20.0, -20.0]])  # the last is no speech
    loud = torch.tensor([[10.0, 14.0], [10.0, 18.0]])
    silent = torch.full((50, 2), -13.8)
    assert not prior.is_measured
    prior.fit([silent])
    assert not prior.is_measured and prior.variance.tolist() == [16.0, 16.0]
    prior.fit([quiet, loud, silent])
    # Means of speech (1, 3) and (10, 16): 1 and 3 off their level. Variances (1, 1) and (0, 4).
    assert prior.is_measured
    assert prior.colour.tolist() == [-2.0, 2.0]
    assert prior.variance.tolist() == [0.5, 2.5]


def test_what_has_more_speech_says_more_of_it():
    prior = UtterancePrior(2, 1.0)
    prior.fit([torch.tensor([[0.0, 0.0], [1.0, 1.0]]).repeat(3, 1), torch.tensor([[0.0, 4.0]] * 2)])
    assert prior.variance.tolist() == [0.25, 0.25]  # the other does not move: it says nothing
    prior.fit(
        [
            torch.tensor([[0.0, 0.0], [2.0, 2.0]]).repeat(3, 1),
            torch.tensor([[0.0, 4.0], [0.0, 8.0]]),
        ]
    )
    assert prior.colour.tolist() == [-0.75, 0.75]  # 6 frames of 0, 2 of 3
    assert prior.variance.tolist() == [0.75, 1.75]


def test_a_prior_weighs_as_much_as_its_seconds():
    prior = UtterancePrior(2, 1.0)
    prior.fit([torch.tensor([[-2.0, 2.0], [-2.0, 4.0]]), torch.tensor([[0.0, 2.0], [0.0, 4.0]])])
    assert prior.colour.tolist() == [-2.0, 2.0] and prior.variance.tolist() == [0.0, 1.0]
    # 300 frames beside a second: three quarters are the utterance's own, its level all of it.
    mean, variance = torch.tensor([[[9.0, 11.0]]]), torch.tensor([[[4.0, 4.0]]])
    found, spread = prior(mean, variance, torch.tensor([[[300]]]))
    assert found.flatten().tolist() == [10 - 1.25, 10 + 1.25]
    # Around what is taken for the mean the utterance has 4 + 0.25^2.
    assert spread.flatten().tolist() == [0.75 * 4.0625, 0.75 * 4.0625 + 0.25]


def test_with_a_prior_a_short_utterance_keeps_its_colour_and_a_long_one_hardly():
    log_mel = LogMel(prior_seconds=1.0)
    hertz = 1000.0
    tone = torch.sin(2 * math.pi * hertz * torch.arange(32000) / 16000)[None] + noise(1, 32000)
    short, _ = log_mel(tone[:, :3200], torch.tensor([3200]))
    long, _ = log_mel(tone.repeat(1, 20), torch.tensor([640000]))
    assert LogMel()(tone, torch.tensor([32000]))[0].mean(dim=1).abs().max() < 1e-4
    at = int(short[0].mean(dim=0).argmax())
    assert short[0, :, at].mean() > 1.0
    assert long[0, :, at].mean() < 0.25 * short[0, :, at].mean()


def test_with_a_prior_loudness_changes_nothing_still():
    log_mel = LogMel(prior_seconds=1.0)
    log_mel.prior.colour.copy_(torch.linspace(2.0, -2.0, 80))
    quiet = noise(1, 8000)
    size = all_of(quiet)
    assert torch.allclose(log_mel(quiet, size)[0], log_mel(5 * quiet, size)[0], atol=0.01)


def test_the_weight_can_be_changed_and_what_was_measured_stays():
    log_mel = LogMel(prior_seconds=1.0)
    log_mel.prior.colour.fill_(3.0)
    log_mel.set_prior(2.0)
    assert log_mel.prior.seconds == 2.0 and (log_mel.prior.colour == 3.0).all()


def test_padding_changes_nothing_of_what_a_stream_that_went_on_for_long_gives():
    features = LogMel()
    features.learn_to_stream()
    speech = noise(2, 32000) * torch.linspace(0.1, 2.0, 32000)
    features.running.fit([features.frames(torch.nn.functional.pad(speech, (120, 120)))[0]])
    features.train()

    def heard(waveform: torch.Tensor, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return features(waveform, torch.tensor([32000, 16000]), streaming=True)[0][:, :200]

    padded = torch.nn.functional.pad(speech, (0, 16000))
    found = [(heard(speech, seed), heard(padded, seed)) for seed in range(6)]
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in found)
    assert not torch.allclose(found[0][0], found[1][0]) or not torch.allclose(
        found[0][0], found[2][0]
    )  # some began afresh, and some did not
