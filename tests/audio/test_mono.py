"""One channel of several: two that cancel each other out are not silence."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest
import soundfile

from speechjepa.audio.files import read_audio, stream_audio
from speechjepa.audio.live import read_pipe

RATE = 16000


def speech(seconds: float, seed: int = 0, level: float = 0.1) -> np.ndarray:
    """Return noise that begins after half a second of silence, and pauses every other second."""
    wave = np.random.default_rng(seed).normal(0, level, round(seconds * RATE))
    time = np.arange(len(wave)) / RATE
    wave[(time < 0.5) | (time % 2 > 1.5)] = 0
    return wave.astype(np.float32)


def write(path, *channels, subtype="PCM_16"):
    soundfile.write(path, np.stack(channels, axis=1), RATE, subtype)
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.mkv"])
def test_channels_in_opposite_phase_are_not_silence_and_it_is_said_once(tmp_path, caplog, name):
    wave = speech(40.0)
    path = write(tmp_path / "a.wav", wave, -0.95 * wave)
    if name == "a.mkv":  # whose blocks are short
        path = as_video(path, tmp_path / name)
    with caplog.at_level(logging.WARNING, "speechjepa"):
        read = read_audio(path)
        np.testing.assert_allclose(read, wave, atol=1e-4)
        blocks = list(stream_audio(path, block_seconds=3.0))
        np.testing.assert_array_equal(np.concatenate(blocks), read)
        # A stretch agrees with the whole, wherever it begins.
        stretch = read_audio(path, start=20.6, duration=2.0)
        np.testing.assert_array_equal(stretch, read[round(20.6 * RATE) :][: 2 * RATE])
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path}: its two channels are in opposite phase")


def as_video(source, target):
    import av

    with av.open(str(source)) as wav, av.open(str(target), "w") as video:
        stream = video.add_stream_from_template(wav.streams.audio[0])
        for packet in wav.demux():
            if packet.dts is not None:
                packet.stream = stream
                video.mux(packet)
    return target


@pytest.mark.parametrize("channels", ["alike", "two microphones", "one alone", "silent", "offset"])
def test_other_channels_are_averaged_without_a_word(tmp_path, caplog, channels):
    wave, nothing = speech(3.0), np.zeros(3 * RATE, np.float32)
    pairs = {
        "alike": (wave, wave),
        "two microphones": (wave, -0.5 * wave + speech(3.0, seed=1, level=0.05)),
        "one alone": (nothing, wave),
        "silent": (nothing, nothing),
        "offset": (0.01 * wave + 0.2, 0.01 * wave - 0.2),
    }
    path = write(tmp_path / "a.wav", *pairs[channels], subtype="FLOAT")
    with caplog.at_level(logging.WARNING, "speechjepa"):
        np.testing.assert_allclose(read_audio(path), np.mean(pairs[channels], axis=0), atol=1e-6)
    assert not caplog.records


def test_a_pipe_in_opposite_phase_is_heard_too(tmp_path):
    wave = speech(3.0)
    content = write(tmp_path / "a.wav", wave, -wave).read_bytes()
    heard = np.concatenate(list(read_pipe(io.BytesIO(content), RATE)))
    np.testing.assert_allclose(heard, wave, atol=1e-4)
