"""Pitch and level, of sounds whose pitch and level are known."""

from __future__ import annotations

import numpy as np
import pytest

from speechjepa.audio.level import SPEECH_LEVEL, set_level
from speechjepa.audio.pitch import track_pitch


def _buzz(hertz: np.ndarray, amplitude: float = 0.2) -> np.ndarray:
    """Return ten harmonics of a pitch (S,), each softer than the one below."""
    phase = 2 * np.pi * np.cumsum(hertz) / 16000
    sound = sum(np.cos(k * phase) / k for k in range(1, 11))
    return (amplitude * sound / 3).astype(np.float32)


@pytest.mark.parametrize("hertz", [75.0, 118.0, 220.0, 400.0])
def test_a_steady_pitch_is_found_to_within_half_a_percent(hertz) -> None:
    found = track_pitch(_buzz(np.full(8000, hertz)))
    assert found.hertz.shape == (50,)
    inside = slice(3, -3)  # at the edges, silence is compared with
    assert found.voiced[inside].all()
    np.testing.assert_allclose(found.hertz[inside], hertz, rtol=0.005)


def test_a_glide_is_followed() -> None:
    hertz = np.linspace(110, 160, 16000)
    found = track_pitch(_buzz(hertz))
    middles = hertz[80::160]
    np.testing.assert_allclose(found.hertz[4:-4], middles[4:-4], rtol=0.02)


def test_noise_and_silence_have_no_voice() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    assert track_pitch(noise).voiced.mean() < 0.05
    assert not track_pitch(np.zeros(16000, np.float32)).voiced.any()
    assert not track_pitch(np.zeros(16000, np.float32)).hertz.any()
    assert track_pitch(np.zeros(10, np.float32)).hertz.shape == (0,)


def test_where_the_voice_pauses_the_pitch_goes_on_in_a_line() -> None:
    sound = np.concatenate(
        [_buzz(np.full(4800, 100.0)), np.zeros(4800, np.float32), _buzz(np.full(4800, 140.0))]
    )
    found = track_pitch(sound)
    assert not found.voiced[35:55].any()
    assert found.voiced[5:25].all() and found.voiced[65:85].all()
    assert found.hertz[45] == pytest.approx(120, abs=4)


def test_speech_of_any_level_gets_one_level() -> None:
    speech = _buzz(np.full(16000, 150.0))
    silence = np.zeros(32000, np.float32)
    for loudness in (0.01, 1.0):
        levelled = set_level(np.concatenate([silence, loudness * speech]))
        # Pauses do not count: the speech itself has the level.
        assert np.sqrt(np.square(levelled[32000:]).mean()) == pytest.approx(SPEECH_LEVEL, rel=0.02)


def test_peaks_do_not_clip_and_silence_stays() -> None:
    clicks = np.zeros(16000, np.float32)
    clicks[::4000] = 0.1
    assert np.abs(set_level(clicks)).max() <= 0.951
    assert not set_level(np.zeros(16000, np.float32)).any()
    assert set_level(np.zeros(5, np.float32)).shape == (5,)
