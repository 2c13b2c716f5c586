"""Audio that comes in: raw or wav through a pipe in any pieces, and microphones."""

from __future__ import annotations

import builtins
import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from speechjepa.audio.live import read_microphone, read_pipe
from speechjepa.errors import AudioError, ConfigError


class Trickle:
    """A pipe that gives a few bytes at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        self._content = io.BytesIO(content)
        self._size = size

    def read1(self, count: int) -> bytes:
        return self._content.read(min(count, self._size))


def heard(content: bytes, size: int = 1000, rate: int = 16000) -> np.ndarray:
    return np.concatenate([*read_pipe(Trickle(content, size), rate), np.zeros(0, np.float32)])


def tone(seconds: float = 0.5, rate: int = 16000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)


def wav(samples: np.ndarray, rate: int, subtype: str, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype=subtype, format=kind)
    return file.getvalue()


@pytest.mark.parametrize("size", [1, 3, 4096, 10**6])
def test_raw_samples_are_16_bits_at_16_khz(size):
    expected = np.array([0, 16384, -32768, 32767, 1, -1] * 50, "<i2")
    samples = heard(expected.tobytes() + b"\x07", size)  # half a sample at the end is dropped
    assert samples.dtype == np.float32
    assert np.array_equal(samples, (expected / 32768).astype(np.float32))


def test_an_empty_pipe_is_an_error():
    with pytest.raises(AudioError, match="standard input: is empty"):
        heard(b"")


@pytest.mark.parametrize("content", [b"\x00", b"\x00\x01\x00\x02"])
def test_hardly_anything_is_no_error(content):
    assert len(heard(content)) == len(content) // 2


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
def test_wav_of_every_sample_type_is_read(subtype, kind):
    samples = heard(wav(tone(), 16000, subtype, kind), size=777)
    assert np.abs(samples - tone()).max() < (0.01 if subtype == "PCM_U8" else 1e-4)


def test_channels_are_mixed_and_any_rate_is_resampled():
    stereo = np.stack([tone(1.0, 44100), np.zeros(44100)], 1)
    samples = heard(wav(stereo, 44100, "PCM_16"))
    assert len(samples) == pytest.approx(16000, abs=2)
    assert np.abs(samples[1000:-1000] - 0.5 * tone(1.0)[1000:-1000]).max() < 0.01


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_written_to_a_pipe_does_not_know_its_length(size):
    content = bytearray(wav(tone(), 16000, "PCM_16"))
    place = content.index(b"data") + 4
    content[place : place + 4] = size.to_bytes(4, "little")
    assert len(heard(bytes(content))) == 8000


def test_what_follows_the_samples_of_a_wav_is_not_heard():
    assert len(heard(wav(tone(), 16000, "PCM_16") + b"LIST" + b"\x55" * 400)) == 8000


@pytest.mark.parametrize(
    "kind, subtype", [("OGG", "VORBIS"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16")]
)
def test_other_files_are_named_and_the_way_out_too(kind, subtype):
    with pytest.raises(AudioError, match="not raw samples or wav.*ffmpeg"):
        heard(wav(tone(), 16000, subtype, kind))


@pytest.mark.parametrize("cut", [13, 20, 30, 40])
def test_a_header_that_ends_early_is_an_error(cut):
    with pytest.raises(AudioError, match="damaged or cut off"):
        heard(wav(tone(), 16000, "PCM_16")[:cut])


def test_compressed_wav_is_refused_with_what_it_is():
    with pytest.raises(AudioError, match="kind 6, 8 bits"):
        heard(wav(tone(), 16000, "ALAW"))


def test_without_sounddevice_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "sounddevice":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"speechjepa\[mic\]"):
        next(read_microphone("", 16000, 0.32))


def test_without_portaudio_the_library_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="apt install libportaudio2"):
        next(read_microphone("", 16000, 0.32))


class PortAudioError(Exception):
    pass


def fake_sounddevice(rates: list[int], overflows: bool = False):
    """Stand in for the library, which needs hardware: a device that knows these rates."""

    class InputStream:
        def __init__(self, *, device, channels, samplerate, dtype):
            assert channels == 1 and dtype == "float32" and samplerate in rates
            self.rate, self.time = samplerate, 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, count):
            times = (self.time + np.arange(count)) / self.rate
            self.time += count
            return 0.5 * np.sin(2 * np.pi * 440 * times)[:, None].astype(np.float32), overflows

    def check(*, device, channels, samplerate):
        if samplerate not in rates:
            raise PortAudioError("Invalid sample rate")

    def query(name, kind):
        if not rates:
            raise PortAudioError("Error querying device -1")
        return {"name": "a microphone", "default_samplerate": float(rates[0])}

    return SimpleNamespace(
        InputStream=InputStream,
        check_input_settings=check,
        query_devices=query,
        PortAudioError=PortAudioError,
    )


@pytest.mark.parametrize("rate", [16000, 48000])
def test_a_microphone_of_any_rate_is_heard_at_ours(monkeypatch, rate):
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice([rate]))
    blocks = read_microphone("", 16000, 0.32)
    samples = np.concatenate([next(blocks) for _ in range(10)])
    assert len(samples) == pytest.approx(10 * 5120, abs=400)
    assert np.abs(samples[1000:50000] - tone(4.0)[1000:50000]).max() < 0.01


def test_a_missing_microphone_is_an_error_and_lost_audio_is_said(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice([]))
    with pytest.raises(ConfigError, match="no microphone can be opened .*--mic NAME"):
        next(read_microphone("7", 16000, 0.32))
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice([16000], overflows=True))
    next(read_microphone("", 16000, 0.32))
    assert "audio was lost" in caplog.text
