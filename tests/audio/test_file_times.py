"""What headers and time stamps of audio files promise, and what is there."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from speechjepa.audio.files import probe_audio, read_audio
from tests.audio.test_files import RATE, refused, tone, write


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.mp3", "MPEG_LAYER_III"), ("a.ogg", "VORBIS"), ("a.opus", "OPUS"), ("a.flac", "PCM_16")],
)
def test_what_follows_the_declared_end_is_not_lost_in_silence(tmp_path, name, subtype) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * RATE).astype(np.float32)
    format = "OGG" if name == "a.opus" else None
    path = write(tmp_path / name, noise, RATE, subtype, format)
    once = path.read_bytes()
    assert len(read_audio(path)) == pytest.approx(5 * RATE, abs=RATE / 10)
    path.write_bytes(once + once)
    refused(path, r"goes on after the 5\.\d s that it declares: .*ffmpeg")
    # Tags and zeros are no sound.
    path.write_bytes(once + bytes(70_000))
    assert len(read_audio(path)) == pytest.approx(5 * RATE, abs=RATE / 10)
    if name == "a.mp3":
        jpeg = np.random.default_rng(0).bytes(90_000)
        ape = jpeg + b"APETAGEX" + struct.pack("<IIII", 2000, 90_032, 1, 0) + bytes(8)
        lyrics = b"LYRICSBEGIN" + b"x" * 60_000 + b"060011LYRICS200"
        path.write_bytes(once + ape + lyrics + b"TAG" + bytes(125))
        assert len(read_audio(path)) == pytest.approx(5 * RATE, abs=RATE / 10)


def test_a_wav_longer_than_its_header_can_say_is_refused(tmp_path, caplog) -> None:
    path = write(tmp_path / "a.wav", tone(4.0), RATE, "PCM_16")
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    size = struct.unpack("<I", content[place : place + 4])[0]
    content[place : place + 4] = struct.pack("<I", size // 4)
    path.write_bytes(content)
    for _ in range(2):
        assert len(read_audio(path)) == RATE
    assert caplog.text.count("declares 1.0 s of audio, but goes on for another 3.0 s") == 1
    with open(path, "r+b") as handle:  # takes no room on the disk
        handle.truncate((1 << 32) + 1000)
    refused(path, "sizes in a WAV file end at 4 GB.*--ignore-length")
    # Chunks, with a pad byte or without, zeros that fill a block, and tags may stand behind.
    caplog.clear()
    chunk = b"iXML" + struct.pack("<I", 9001) + b"x" * 9002
    whole = bytearray(write(path, tone(4.0), RATE, "PCM_16").read_bytes())
    odd = bytearray(write(path, tone(4.0)[:-1], RATE, "PCM_U8").read_bytes())
    assert len(odd) % 2 == 0  # libsndfile pads
    for content in (
        whole + chunk,
        whole + bytes(8192),
        whole + chunk + bytes(999),
        odd[:-1] + chunk,
    ):
        path.write_bytes(content)
        assert len(read_audio(path)) in (4 * RATE, 4 * RATE - 1)
    path.write_bytes(whole + b"ID3\4" + np.random.default_rng(0).bytes(9000))
    assert len(read_audio(path)) == 4 * RATE
    assert caplog.text == ""


def test_flac_from_a_pipe_does_not_say_how_long_it_is(tmp_path) -> None:
    path = write(tmp_path / "a.flac", tone(3.0), RATE, "PCM_16")
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the number of samples: 4 bits and 4 bytes
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert probe_audio(path).duration == pytest.approx(3.0)
    assert np.allclose(read_audio(path), tone(3.0), atol=1e-4)


def write_film(path: Path, starts: list[float], tracks: int = 1) -> Path:
    """Write a film of 6 s whose sound, seconds of a tone, begins at each of `starts`."""
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        sounds = [
            container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(tracks)
        ]
        packets = []
        for number in range(60):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 10)
            packets += video.encode(picture)
        packets += video.encode(None)
        for sound in sounds:
            for start in starts:
                for first in range(0, RATE, 1600):
                    wave = (tone(1.0)[None, first : first + 1600] * 32767).astype(np.int16)
                    frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                    frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                    frame.pts = round(start * RATE) + first
                    packets += sound.encode(frame)
            packets += sound.encode(None)
        for packet in sorted(packets, key=lambda p: float(p.dts * p.time_base)):
            container.mux(packet)
    return path


@pytest.mark.parametrize(("name", "starts"), [("a.mkv", [2.0, 4.5]), ("a.mov", [2.0])])
def test_sound_that_begins_late_or_has_a_gap_keeps_its_times(tmp_path, name, starts) -> None:
    wave = read_audio(write_film(tmp_path / name, starts))
    end = starts[-1] + 1.0
    assert len(wave) == pytest.approx(end * RATE, abs=RATE / 50)
    is_tone = np.zeros(len(wave), bool)
    for start in starts:
        is_tone[round(start * RATE) : round((start + 1.0) * RATE)] = True
    assert np.abs(wave[~is_tone]).max() < 1e-3
    assert np.allclose(wave[is_tone], np.tile(tone(1.0), len(starts)), atol=1e-2)
    for start, duration in ((1.0, 1.5), (2.5, 3.0), (3.2, 0.5), (0.0, 1.5)):
        if start + 0.5 < end:
            part = read_audio(tmp_path / name, start=start, duration=min(duration, end - start))
            first = round(start * RATE)
            assert np.allclose(part, wave[first : first + len(part)], atol=1e-4)
            assert len(part) == round(min(duration, end - start) * RATE)


def test_of_several_tracks_it_is_said_that_one_is_heard(tmp_path, caplog) -> None:
    path = write_film(tmp_path / "a.mov", [0.0], tracks=2)
    for _ in range(2):
        read_audio(path)
    assert caplog.text.count("a.mov has 2 sound tracks, of which the first is heard") == 1
