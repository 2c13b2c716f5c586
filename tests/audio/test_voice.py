import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechjepa.audio.voice import FRAME, RATE, EnergyDetector, SileroDetector, SpeechFrames
from tests.synthetic_speech import say_syllables

DETECTORS = [SileroDetector, EnergyDetector]
RANDOM = np.random.default_rng(0)


def probabilities(detector, *blocks):
    return np.concatenate([*(detector.push(block) for block in blocks), detector.finish()])


def is_speech(detector, waveform):
    frames = SpeechFrames(detector)
    decided = np.concatenate([frames.push(waveform.astype(np.float32)), frames.finish()])
    assert len(decided) == -(-len(waveform) // FRAME)
    return decided


def melody(seconds):
    """Decaying notes with harmonics, as a plucked string has."""
    notes = []
    for note in np.random.default_rng(1).integers(0, 24, round(seconds / 0.3)):
        time = np.arange(round(0.3 * RATE)) / RATE
        phase = 2 * np.pi * 220 * 2 ** (note / 12) * time
        sound = sum(np.sin(k * phase) / k**1.5 for k in range(1, 8)) * np.exp(-4 * time)
        notes.append(sound * np.minimum(1, time / 0.01))
    joined = np.concatenate(notes)
    return 0.4 * joined / np.abs(joined).max()


NO_SPEECH = {
    "silence": np.zeros(10 * RATE),
    "white noise": 0.1 * RANDOM.standard_normal(10 * RATE),
    "faint noise": 0.001 * RANDOM.standard_normal(RATE // 2),
    "hum": 0.2 * np.sin(2 * np.pi * 50 * np.arange(10 * RATE) / RATE),
    "a tone": 0.3 * np.sin(2 * np.pi * 440 * np.arange(10 * RATE) / RATE),
    "a melody": melody(10),
}


@pytest.mark.parametrize("name", NO_SPEECH)
@pytest.mark.parametrize("detector", DETECTORS)
def test_what_is_no_speech_is_not_taken_for_it(detector, name):
    if detector is EnergyDetector and name == "a melody":
        pytest.skip("levels do not tell music from speech")
    assert not is_speech(detector(), NO_SPEECH[name]).any()


@pytest.mark.parametrize("noise", [0.0, 0.003])
@pytest.mark.parametrize("detector", DETECTORS)
def test_speech_is_found_where_it_is(detector, noise):
    speech = say_syllables(seconds=2.0)
    silence = np.zeros(2 * RATE)
    waveform = np.concatenate([silence, speech, silence])
    decided = is_speech(detector(), waveform + noise * RANDOM.standard_normal(len(waveform)))
    inside = slice(2 * RATE // FRAME + 3, (2 * RATE + len(speech)) // FRAME - 6)
    assert decided[inside].mean() > 0.8
    assert not decided[: inside.start - 8].any()
    assert not decided[inside.stop + 15 :].any()


def test_silero_finds_speech_at_any_level():
    speech = say_syllables(seconds=3.0)
    gaps = 0.002 * RANDOM.standard_normal(RATE)
    waveform = np.concatenate([gaps, speech, gaps]).astype(np.float32)
    waveform *= 0.5 / np.abs(waveform).max()
    loud = is_speech(SileroDetector(), waveform)
    for level in (0.1, 0.01, 0.001):
        quiet = is_speech(SileroDetector(), (waveform * level).astype(np.float32))
        assert quiet[loud].mean() > 0.9
        assert quiet[~loud].mean() < 0.1


def test_a_click_makes_no_quiet_speech_fainter():
    gaps = 0.002 * RANDOM.standard_normal(RATE)
    waveform = np.concatenate([gaps, say_syllables(seconds=3.0), gaps]).astype(np.float32)
    waveform *= 0.001 / np.abs(waveform).max()
    undisturbed = is_speech(SileroDetector(), waveform)
    waveform[RATE // 2 : RATE // 2 + 160] = 0.9 * RANDOM.uniform(-1, 1, 160)
    clicked = is_speech(SileroDetector(), waveform)
    assert undisturbed.mean() > 0.4
    assert clicked[undisturbed].mean() > 0.9
    assert clicked[~undisturbed].mean() < 0.1


def test_silero_here_gives_what_its_own_torchscript_gives():
    folder = Path(importlib.util.find_spec("silero_vad").origin).parent / "data"
    theirs = torch.jit.load(str(folder / "silero_vad.jit"))
    waveform = np.concatenate([np.zeros(RATE), say_syllables(2.0), melody(1.2)]).astype(np.float32)
    waveform = waveform[: len(waveform) // FRAME * FRAME]
    waveform[: 4 * FRAME : FRAME] = 0.6  # loud for as long as counts: nothing is made louder after
    with torch.no_grad():
        expected = [theirs(frame[None], RATE).item() for frame in torch.tensor(waveform).split(512)]
    found = probabilities(SileroDetector(), waveform)
    assert max(expected) > 0.9
    np.testing.assert_allclose(found, expected, atol=1e-4)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 40000), max_size=6))
@pytest.mark.parametrize("detector", DETECTORS)
def test_decisions_do_not_depend_on_how_the_stream_is_cut(detector, cuts):
    waveform = np.concatenate([np.zeros(RATE), say_syllables(1.5)]).astype(np.float32)
    whole = probabilities(detector(), waveform)
    parts = probabilities(detector(), *np.split(waveform, sorted(cuts)))
    np.testing.assert_allclose(parts, whole, atol=1e-5)


class Given:
    """A detector that is told its probabilities."""

    def push(self, samples):
        return samples

    def finish(self):
        return np.zeros(0, np.float32)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ([0.4, 0.6, 0.4, 0.4, 0.3, 0.4], [0, 1, 1, 1, 0, 0]),
        ([0.6, 0.6, 0.1, 0.9], [0, 0, 0, 0]),  # neither lasts three frames
        ([0.1, 0.9, 0.9, 0.9], [0, 1, 1, 1]),
    ],
)
def test_speech_begins_high_ends_low_and_lasts_three_frames(given_, expected):
    frames = SpeechFrames(Given())
    decided = np.concatenate([frames.push(np.array(given_[:2])), frames.push(np.array(given_[2:]))])
    assert np.concatenate([decided, frames.finish()]).tolist() == [bool(e) for e in expected]


def test_a_trace_of_speech_is_enough_in_a_word_cut_out_of_a_recording():
    brief, longer = SpeechFrames(Given()), SpeechFrames(Given())
    brief.push(np.array([0.0, 0.2, 0.2] + 20 * [0.0]))
    longer.push(np.array([0.0, 0.2, 0.2] + 100 * [0.0]))
    assert (brief.was_heard, longer.was_heard) == (True, False)


def test_the_number_of_threads_is_left_alone():
    code = (
        "import torch; torch.set_num_threads(2);"
        "from speechjepa.audio.voice import SileroDetector; SileroDetector();"
        "import sys; print(torch.get_num_threads(), 'silero_vad' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]
