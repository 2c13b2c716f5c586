"""Augmentation hides the share it is told to, and nothing of the padding."""

from __future__ import annotations

import math

import pytest
import torch

from speechjepa.audio.augment import fewest_samples, mask_features, perturb_speed


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masked(features, lengths, seed=0, **changes):
    settings = {
        "mask_prob": 0.0,
        "mask_length": 10,
        "mask_channel_prob": 0.0,
        "mask_channel_length": 16,
    }
    return mask_features(features, lengths, **(settings | changes), generator=generator(seed))


def test_speed_changes_length_and_pitch_by_the_same_factor():
    waveform = torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)[None]
    for seed in range(5):
        changed, lengths = perturb_speed(waveform, torch.tensor([16000]), 0.1, generator(seed))
        factor = 16000 / changed.shape[1]
        assert 0.9 <= factor <= 1.101
        assert lengths.tolist() == [changed.shape[1]]
        peak = torch.fft.rfft(changed[0]).abs().argmax() * 16000 / changed.shape[1]
        assert float(peak) == pytest.approx(1000 * factor, rel=0.01)


def test_lengths_scale_exactly_even_for_hours_of_audio():
    size = 50_000_001
    waveform = torch.zeros(1, 1).expand(1, size)
    changed, lengths = perturb_speed(waveform, torch.tensor([size]), 0.1, generator(3))
    assert lengths.tolist() == [changed.shape[1]]


def test_no_change_asked_for_is_no_change():
    waveform = torch.randn(2, 1000, generator=generator())
    changed, lengths = perturb_speed(waveform, torch.tensor([1000, 400]), 0.0, generator())
    assert torch.equal(changed, waveform)
    assert lengths.tolist() == [1000, 400]


def test_the_seed_alone_decides_the_speed():
    waveform = torch.randn(1, 1000, generator=generator())
    first, _ = perturb_speed(waveform, torch.tensor([1000]), 0.1, generator(7))
    again, _ = perturb_speed(waveform, torch.tensor([1000]), 0.1, generator(7))
    assert torch.equal(first, again)


def test_no_utterance_is_shortened_to_nothing():
    _, lengths = perturb_speed(torch.zeros(2, 500), torch.tensor([500, 1]), 0.1, generator(1))
    assert lengths.min() >= 1


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_expected_share_of_frames_is_hidden(share):
    features = torch.ones(64, 500, 2)
    hidden = masked(features, torch.full((64,), 500), mask_prob=share)[:, :, 0] == 0
    assert float(hidden.float().mean()) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_expected_share_of_channels_is_hidden_for_all_frames(share):
    features = torch.ones(200, 3, 192)
    hidden = masked(features, torch.full((200,), 3), mask_channel_prob=share) == 0
    assert float(hidden.float().mean()) == pytest.approx(share, abs=0.04)
    assert torch.equal(hidden[:, 0], hidden[:, 2])


def test_hidden_frames_come_in_spans():
    hidden = masked(torch.ones(1, 400, 1), torch.tensor([400]), mask_prob=0.2)[0, :, 0] == 0
    runs, run = [], 0
    for value in [*hidden.tolist(), False]:
        if value:
            run += 1
        elif run:
            runs.append(run)
            run = 0
    assert runs
    assert all(run >= 10 for run in runs[1:-1])


def test_padding_is_left_as_it_is_and_visible_values_too():
    features = torch.full((2, 50, 4), 3.0)
    result = masked(features, torch.tensor([50, 20]), mask_prob=0.9, mask_channel_prob=0.5)
    assert (result[1, 20:] == 3.0).all()
    assert set(result.unique().tolist()) == {0.0, 3.0}


def test_nothing_asked_for_hides_nothing():
    features = torch.ones(2, 50, 4)
    assert torch.equal(masked(features, torch.tensor([50, 20])), features)


@pytest.mark.parametrize("most", [0.0, 0.1, 0.3, 0.9])
def test_no_speed_leaves_fewer_samples_than_are_counted_on(most):
    lengths = torch.tensor([1, 7, 400, 12345, 20000])
    waveform = torch.zeros(len(lengths), int(lengths.max()))
    left = torch.stack([perturb_speed(waveform, lengths, most, generator(s))[1] for s in range(99)])
    fewest = fewest_samples(lengths, most)
    assert (left.amin(dim=0) >= fewest).all()
    # And not many fewer: what fits is not left out.
    assert (fewest >= lengths / (1 + most) - 4).all()
