"""The gate lets speech through, with what is around it, and keeps track of the time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from speechjepa.audio.voice import FRAME, make_detector
from speechjepa.errors import ConfigError
from speechjepa.inference.stream import open_stream
from speechjepa.inference.stream_gate import AFTER_SECONDS, BEFORE_SECONDS, STEP, Gate
from tests.tone_model import RATE, ToneModel, synthesize


class LoudIsSpeech:
    """A detector of what is louder than noise."""

    def __init__(self) -> None:
        self._pending = np.zeros(0, np.float32)

    def push(self, samples: np.ndarray) -> np.ndarray:
        self._pending = np.concatenate([self._pending, samples])
        count = len(self._pending) // FRAME
        frames = self._pending[: count * FRAME].reshape(count, FRAME)
        self._pending = self._pending[count * FRAME :]
        return (np.abs(frames).max(axis=1) > 0.3).astype(np.float32)

    def finish(self) -> np.ndarray:
        padded = np.pad(self._pending, (0, FRAME - len(self._pending)))
        return self.push(padded[len(self._pending) :])


def noise(seconds: float) -> np.ndarray:
    samples = np.random.default_rng(0).normal(0, 0.01, round(seconds * RATE))
    return samples.astype(np.float32)


def passed(gate: Gate, samples: np.ndarray, size: int) -> tuple[torch.Tensor, list[int]]:
    """Return what passes, and after how many samples of it the gate closed."""
    parts, closed = [], []
    pieces = torch.from_numpy(samples).split(size)
    for found in [*(p for piece in pieces for p in gate.push(piece)), *gate.finish()]:
        parts.append(found.samples)
        if found.closes:
            closed.append(sum(map(len, parts)))
    return torch.cat([torch.zeros(0), *parts]), closed


@pytest.mark.parametrize("size", [1, 160, 5120, 10**6])
def test_speech_passes_with_what_is_around_it_however_the_stream_is_cut(size):
    recording = np.concatenate([noise(3), synthesize("abcdef"), noise(4), synthesize("gh")])
    recording = recording[: 8 * RATE] if size == 1 else recording
    gate = Gate(LoudIsSpeech(), RATE)
    heard, closed = passed(gate, recording, size)
    begin, end = 3 * RATE, 3 * RATE + len(synthesize("abcdef"))
    first = round(gate.seconds(0.0) * RATE)
    assert abs(first - begin + BEFORE_SECONDS * RATE) <= STEP
    assert torch.equal(heard[: closed[0]], torch.from_numpy(recording[first : first + closed[0]]))
    assert (
        end + AFTER_SECONDS * RATE - STEP <= first + closed[0] <= end + AFTER_SECONDS * RATE + STEP
    )


def test_a_word_that_the_end_cuts_off_passes_though_its_step_is_not_full():
    word = np.full(STEP - 100, 0.5, np.float32)
    heard, _ = passed(
        Gate(LoudIsSpeech(), RATE), np.concatenate([np.zeros(STEP * 8, np.float32), word]), 1000
    )
    assert torch.equal(heard[-len(word) :], torch.from_numpy(word))


def test_times_are_those_of_the_stream():
    recording = np.concatenate([noise(3), synthesize("abc"), noise(4), synthesize("gh"), noise(2)])
    gate = Gate(LoudIsSpeech(), RATE)
    heard, closed = passed(gate, recording, 1000)
    for sample in range(0, len(heard), 997):
        place = round(gate.seconds(sample / RATE) * RATE)
        assert recording[place] == heard[sample]
    gate.forget(closed[0] / RATE)
    assert len(gate._segments) <= 2
    last = closed[0] + 100
    assert recording[round(gate.seconds(last / RATE) * RATE)] == heard[last]


def test_without_a_detector_everything_passes_at_once():
    gate = Gate(None, RATE)
    heard, closed = passed(gate, noise(2), 100)
    assert torch.equal(heard, torch.from_numpy(noise(2))) and closed == []


def test_hours_of_silence_are_not_kept():
    gate = Gate(LoudIsSpeech(), RATE)
    for _ in range(50):
        assert list(gate.push(torch.from_numpy(noise(2)))) == []
    assert len(gate._held) <= BEFORE_SECONDS * RATE + STEP


def test_a_stream_cannot_wait_for_levels():
    with pytest.raises(ConfigError, match="too late for a stream"):
        open_stream(ToneModel(), vad="energy")


def test_noise_is_no_speech_to_the_real_detector():
    gate = Gate(make_detector("silero"), RATE)
    heard, _ = passed(gate, noise(12), 1600)
    assert len(heard) == 0


def test_words_keep_their_times_although_the_pause_between_them_was_not_heard(monkeypatch):
    from speechjepa.inference import stream as module

    monkeypatch.setattr(module, "make_detector", lambda name: LoudIsSpeech())
    parts = [np.zeros(3 * RATE, np.float32), synthesize("abc de"), np.zeros(5 * RATE, np.float32)]
    recording = np.concatenate([*parts, synthesize("gh"), np.zeros(2 * RATE, np.float32)])
    model = ToneModel()
    stream = open_stream(model, vad="silero")
    heard = [h for part in np.array_split(recording, 70) for h in stream.feed(part)]
    heard.append(stream.finish())
    words = [word for h in heard for word in h.final]
    assert [word["word"] for word in words] == ["abc", "de", "gh"]
    begin = 3 + len(synthesize("abc de")) / RATE + 5
    assert words[0]["start"] == pytest.approx(3.0, abs=0.045)
    assert words[2]["start"] == pytest.approx(begin, abs=0.045)
    assert [" ".join(w["word"] for w in h.final) for h in heard if h.endpoint][-2:] == ["gh", ""]
    seconds = [h.seconds for h in heard]
    assert seconds == sorted(seconds)


def test_times_do_not_drift_over_many_pauses(tmp_path, monkeypatch):
    import speechjepa
    from speechjepa.inference import stream as module
    from tests.streaming_model import write_bundle

    monkeypatch.setattr(module, "make_detector", lambda name: LoudIsSpeech())
    stream = speechjepa.load(write_bundle(tmp_path)).stream()
    burst = np.random.default_rng(1).uniform(-0.9, 0.9, 9999).astype(np.float32)
    quiet = np.zeros(3 * RATE + 1, np.float32)
    words, begins = [], []
    for number in range(8):
        begins.append(number * (len(burst) + len(quiet)) / RATE)
        heard = [*stream.feed(burst), *stream.feed(quiet)]
        words.append([word for h in heard for word in h.final])
    first = words[1][0]["start"] - begins[1]
    for begin, found in zip(begins[2:], words[2:], strict=True):
        assert found[0]["start"] - begin == pytest.approx(first, abs=0.15)
    assert len(stream._gate._segments) <= 3
