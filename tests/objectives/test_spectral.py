"""Losses of a vocoder, by hand, and what they may not depend on."""

from __future__ import annotations

import math

import torch

from speechjepa.objectives.spectral import (
    FLOOR,
    duration_loss,
    log_mel_loss,
    multi_resolution_stft_loss,
    pitch_loss,
    stft_magnitude,
)


def _speech(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(2, 6000, generator=generator)


def test_white_noise_has_its_own_deviation_in_every_bin() -> None:
    noise = 0.3 * torch.randn(1, 160_000, generator=torch.Generator().manual_seed(0))
    power = stft_magnitude(noise, 512, 128).square().mean(dim=(0, 1))
    torch.testing.assert_close(power[2:-2].mean(), torch.tensor(0.09), rtol=0.02, atol=0)


def test_equal_waveforms_cost_nothing() -> None:
    wave = _speech()
    assert multi_resolution_stft_loss(wave, wave) < 1e-6
    assert log_mel_loss(wave, wave) == 0


def test_half_the_amplitude_costs_half_and_a_logarithm_of_two() -> None:
    # ||Y - Y/2|| / ||Y|| = 1/2; |log Y - log Y/2| = log 2, but for the floor.
    wave = 1000 * _speech()
    found = multi_resolution_stft_loss(0.5 * wave, wave)
    torch.testing.assert_close(found, torch.tensor(0.5 + math.log(2)), rtol=1e-3, atol=0)
    torch.testing.assert_close(
        log_mel_loss(0.5 * wave, wave), torch.tensor(math.log(2)), rtol=1e-3, atol=0
    )


def test_silence_for_noise_costs_one_and_the_distance_to_the_floor() -> None:
    wave = _speech()
    magnitudes = stft_magnitude(wave, 512, 128)
    by_hand = 1 + (torch.log(magnitudes + FLOOR) - math.log(FLOOR + 1e-6)).mean()
    found = multi_resolution_stft_loss(torch.zeros_like(wave), wave, [(512, 128)])
    torch.testing.assert_close(found, by_hand, rtol=1e-3, atol=0)


def test_a_pause_weighs_no_more_than_quiet_speech() -> None:
    # Found 0.001 where nothing was: divided by 0.01, not by 0.
    noise = 0.01 * _speech()
    found = multi_resolution_stft_loss(noise, torch.zeros_like(noise), [(512, 128)])
    magnitudes = stft_magnitude(noise, 512, 128)
    logarithms = (torch.log(magnitudes + FLOOR) - math.log(FLOOR + 1e-6)).mean()
    torch.testing.assert_close(found - logarithms, torch.tensor(0.1), rtol=0.1, atol=0)


def test_the_sign_of_a_waveform_does_not_matter() -> None:
    wave = _speech()
    assert multi_resolution_stft_loss(-wave, wave) < 1e-6


def test_silence_has_a_finite_gradient() -> None:
    silent = torch.zeros(1, 4096, requires_grad=True)
    loss = multi_resolution_stft_loss(silent, silent.detach())
    (loss + log_mel_loss(silent, _speech()[:1, :4096])).backward()
    assert silent.grad is not None and torch.isfinite(silent.grad).all()


def test_pitch_counts_where_the_voice_is_heard() -> None:
    found = torch.tensor([[7.0, 8.0, 5.0]])
    wanted = torch.tensor([[7.5, 8.25, 9.0]])
    voiced = torch.tensor([[True, True, False]])
    assert float(pitch_loss(found, wanted, voiced)) == (0.5 + 0.25) / 2
    assert float(pitch_loss(found, wanted, voiced & False)) == 0.0


def test_durations_cost_least_at_their_mean() -> None:
    durations = torch.tensor([[1.0, 1.0, 4.0]])  # mean 2, geometric mean 1.59

    def cost(frames: float) -> float:
        return float(duration_loss(torch.full((1, 3), math.log(frames)), durations))

    assert cost(2.0) < min(cost(1.8), cost(2.2), cost(1.59))
    assert math.isclose(cost(2.0), 2 - 2 * math.log(2), rel_tol=1e-6)
