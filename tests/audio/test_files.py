"""Reading audio files: what is read is right, and what cannot be read says why."""

from __future__ import annotations

import os
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechjepa.audio.files import probe_audio, read_audio, stream_audio, write_wav
from speechjepa.errors import AudioError

RATE = 16000


def tone(seconds: float, rate: int = RATE, hertz: float = 220.0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.4 * np.sin(2 * np.pi * hertz * (1 + 0.1 * np.sin(time)) * time)
    return (wave + 0.02 * np.random.default_rng(0).standard_normal(len(time))).astype(np.float32)


def write(path: Path, wave: np.ndarray, rate: int, subtype: str, format: str | None = None) -> Path:
    channels = 1 if wave.ndim == 1 else wave.shape[1]
    with soundfile.SoundFile(path, "w", rate, channels, subtype, format=format) as sound:
        for first in range(0, len(wave), 4096):
            sound.write(wave[first : first + 4096])
    return path


def write_video(path: Path, codec: str | None, rate: int = RATE, seconds: float = 30.0) -> Path:
    import av

    with av.open(str(path), "w") as container:
        if codec is None:
            video = container.add_stream("mpeg4", rate=10)
            video.width = video.height = 32
            video.pix_fmt = "yuv420p"
            for _ in range(5):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            return path
        stream = container.add_stream(codec, rate=rate, layout="mono")
        wave = tone(seconds, rate)
        sampler = av.AudioResampler(stream.codec_context.format.name, "mono", rate)
        for first in range(0, len(wave), 1024):
            block = np.ascontiguousarray(wave[None, first : first + 1024])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
            for part in sampler.resample(frame):
                container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


FORMATS = [
    ("a.wav", "PCM_16", 16000, 1e-4),
    ("a.wav", "PCM_U8", 16000, 0.01),
    ("a.wav", "FLOAT", 16000, 0.0),
    ("a.wav", "PCM_24", 16000, 1e-6),
    ("a.flac", "PCM_16", 16000, 1e-4),
    ("a.ogg", "VORBIS", 16000, 0.2),
    ("a.opus", "OPUS", 16000, 0.3),
    ("a.mp3", "MPEG_LAYER_III", 16000, 0.2),
    ("a.aiff", "PCM_16", 16000, 1e-4),
]


@pytest.mark.parametrize(("name", "subtype", "rate", "tolerance"), FORMATS)
def test_a_file_reads_as_what_was_written(tmp_path, name, subtype, rate, tolerance) -> None:
    wave = tone(2.0, rate)
    format = "OGG" if subtype == "OPUS" else None
    path = write(tmp_path / name, wave, rate, subtype, format)
    read = read_audio(path)
    assert read.dtype == np.float32
    assert len(read) == len(wave)
    assert np.abs(read - wave).max() <= tolerance
    info = probe_audio(path)
    assert (info.sample_rate, info.num_channels) == (rate, 1)
    assert info.duration == pytest.approx(2.0)
    assert subtype in info.format


@pytest.mark.parametrize(
    ("name", "subtype", "format"),
    [
        ("a.wav", "PCM_16", None),
        ("a.flac", "PCM_16", None),
        ("a.opus", "OPUS", "OGG"),
        ("a.ogg", "VORBIS", None),
        ("a.mp3", "MPEG_LAYER_III", None),
    ],
)
def test_a_stretch_equals_the_same_samples_of_the_whole(tmp_path, name, subtype, format) -> None:
    path = write(tmp_path / name, tone(40.0), RATE, subtype, format)
    whole = read_audio(path)
    for start in (0.0, 0.01, 3.3333, 27.77, 39.0):
        part = read_audio(path, start=start, duration=1.0)
        first = round(start * RATE)
        # mpg123 rounds differently in the last bit after a search; Opus has a long memory.
        tolerance = 5e-3 if subtype == "OPUS" else 2e-7
        np.testing.assert_allclose(part, whole[first : first + RATE], rtol=0, atol=tolerance)
    assert len(read_audio(path, start=39.5)) == RATE // 2


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 192000])
def test_a_resampled_stretch_equals_the_same_samples_of_the_whole(tmp_path, rate) -> None:
    path = write(tmp_path / "a.wav", tone(5.0, rate), rate, "PCM_16")
    whole = read_audio(path)
    assert len(whole) == 5 * RATE
    for start in (0.0, 1.23456, 3.9):
        part = read_audio(path, start=start, duration=1.0)
        first = round(start * RATE)
        np.testing.assert_allclose(part, whole[first : first + RATE], atol=1e-6)


def test_resampling_keeps_a_tone(tmp_path) -> None:
    time = np.arange(44100) / 44100
    path = write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 440 * time), 44100, "FLOAT")
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    inner = slice(800, -800)
    np.testing.assert_allclose(read_audio(path)[inner], expected[inner], atol=1e-4)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_stream_equals_the_whole_file(tmp_path, rate) -> None:
    path = write(tmp_path / "a.flac", tone(20.5, rate), rate, "PCM_16")
    blocks = list(stream_audio(path, block_seconds=2.0))
    assert {len(block) for block in blocks[:-1]} == {2 * RATE}
    assert 0 < len(blocks[-1]) <= 2 * RATE
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(path))


def test_many_channels_are_averaged(tmp_path) -> None:
    waves = np.stack([tone(1.0, hertz=100 + 50 * k) for k in range(8)], axis=1)
    path = write(tmp_path / "eight.wav", waves, RATE, "FLOAT")
    np.testing.assert_allclose(read_audio(path), waves.mean(axis=1), atol=1e-6)
    assert probe_audio(path).num_channels == 8


def test_more_channels_than_pyav_can_hold_as_planes_are_averaged(tmp_path) -> None:
    import av

    waves = np.stack([np.full(RATE, 0.01 * k, np.float32) for k in range(16)], axis=1)
    path = write(tmp_path / "array.wav", waves, RATE, "PCM_16")
    with av.open(str(path)) as wav, av.open(str(tmp_path / "array.mkv"), "w") as video:
        stream = video.add_stream_from_template(wav.streams.audio[0])
        for packet in wav.demux():
            if packet.dts is not None:
                packet.stream = stream
                video.mux(packet)
    np.testing.assert_array_equal(read_audio(tmp_path / "array.mkv"), read_audio(path))


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_above_full_scale_are_turned_down_and_not_cut(tmp_path, subtype) -> None:
    hot = 6.0 * tone(1.0) / np.abs(tone(1.0)).max()
    path = write(tmp_path / "hot.wav", hot, RATE, subtype)
    assert np.allclose(read_audio(path), hot / 6.0, atol=1e-6)
    assert np.allclose(read_audio(path, start=0.5), hot[RATE // 2 :] / 6.0, atol=1e-6)
    write(path, 0.5 * hot / 6.0, RATE, subtype)  # as it was written where it is not too loud
    assert np.allclose(read_audio(path), 0.5 * hot / 6.0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.m4a", "aac", 16000),
        ("a.mp4", "aac", 44100),
        ("a.webm", "libopus", 48000),
        ("a.mkv", "flac", 44100),
        ("a.aac", "aac", 16000),
    ],
)
def test_what_soundfile_cannot_read_is_read_by_pyav(tmp_path, name, codec, rate) -> None:
    path = write_video(tmp_path / name, codec, rate)
    whole = read_audio(path, sample_rate=rate)
    assert len(whole) / rate == pytest.approx(30.0, abs=0.15)
    assert probe_audio(path).duration == pytest.approx(30.0, abs=0.15)
    assert np.corrcoef(whole[1:-1], np.roll(whole, 1)[1:-1])[0, 1] > 0.9  # a tone, not noise
    for start in (0.0, 3.3, 21.123):
        part = read_audio(path, sample_rate=rate, start=start, duration=1.0)
        first = round(start * rate)
        np.testing.assert_allclose(part, whole[first : first + rate], atol=1e-4)


def test_the_name_does_not_decide_the_format(tmp_path) -> None:
    path = write(tmp_path / "a.flac", tone(1.0), RATE, "PCM_16")
    for name in ("song.mp3", "x.raw", "noend", 'ein Lied "neu" 🎵\n2.wav'):
        copy = tmp_path / name
        copy.write_bytes(path.read_bytes())
        assert len(read_audio(copy)) == RATE
    raw_name = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    Path(os.fsdecode(raw_name)).write_bytes(path.read_bytes())
    assert len(read_audio(os.fsdecode(raw_name))) == RATE


def refused(path: Path, reason: str, **options: float) -> None:
    with pytest.raises(AudioError, match=reason) as caught:
        read_audio(path, **options)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.wav", b"", "is empty"),
        ("a.wav", b"These are words, not sound.\n" * 40, "not audio"),
        ("a.wav", "These are words.\n".encode("utf-16") * 40, "not audio"),
        ("a.txt", b"These are words, not sound.\n" * 40, "not audio"),
        ("a.mp4", b"ffconcat version 1.0\nfile good.wav\n", "not audio"),
        ("a.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\ngood.wav\n", "not audio"),
        ("a.srt", b"1\n00:00:01,000 --> 00:00:02,000\nwords\n\n", "not audio"),
        ("a.raw", bytes(32000), "has no header.*ffmpeg -f s16le"),
        ("a.mp3", np.random.default_rng(0).bytes(20000), "not audio"),
        ("a.m4a", np.random.default_rng(1).bytes(20000), "not audio"),
    ],
)
def test_what_is_not_audio_is_refused(tmp_path, name, content, reason) -> None:
    write_wav(tmp_path / "good.wav", tone(1.0))  # what a playlist could lead to
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, reason)
    with pytest.raises(AudioError):
        probe_audio(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "subtype", "format"),
    [
        ("a.wav", "PCM_16", None),
        ("a.flac", "PCM_16", None),
        ("a.opus", "OPUS", "OGG"),
        ("a.ogg", "VORBIS", None),
        ("a.mp3", "MPEG_LAYER_III", None),
        ("a.aiff", "PCM_16", None),
        ("a.au", "PCM_16", None),
        ("a.w64", "PCM_16", None),
        ("a.wav", "PCM_16", "RF64"),
        ("a.sph", "PCM_16", "NIST"),
    ],
)
@pytest.mark.parametrize("share", [0.01, 0.5])
def test_a_truncated_file_is_refused(tmp_path, name, subtype, format, share) -> None:
    path = write(tmp_path / name, tone(10.0), RATE, subtype, format)
    content = path.read_bytes()
    assert len(read_audio(path)) == 10 * RATE
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "cut off|damaged|not audio")


def test_a_search_that_ends_elsewhere_is_damage(tmp_path, monkeypatch) -> None:
    """As in some damaged mp3 files, where soundfile then counted the samples left below zero."""
    path = write(tmp_path / "a.wav", tone(2.0), RATE, "PCM_16")
    monkeypatch.setattr(soundfile.SoundFile, "tell", lambda self: self.frames + 1)
    refused(path, "damaged or cut off after 1.0 s", start=1.0)


def test_a_truncated_video_is_refused(tmp_path) -> None:
    path = write_video(tmp_path / "a.m4a", "aac")
    path.write_bytes(path.read_bytes()[:20000])
    refused(path, "not audio|cut off|damaged")


@pytest.mark.parametrize("name", ["a.wav", "a.mkv"])
def test_a_codec_that_nobody_knows_is_refused(tmp_path, name) -> None:
    if name == "a.wav":
        path = write(tmp_path / name, tone(1.0), RATE, "PCM_16")
        content, old, new = path.read_bytes(), b"fmt \x10\0\0\0\x01\0", b"fmt \x10\0\0\0\x99\x99"
    else:
        path = write_video(tmp_path / name, "pcm_s16le", seconds=1.0)
        content, old, new = path.read_bytes(), b"A_PCM/INT/LIT", b"A_PCX/INT/LIT"
    assert old in content
    path.write_bytes(content.replace(old, new))
    refused(path, "no decoder knows")
    with pytest.raises(AudioError, match="no decoder knows"):
        probe_audio(path)


def test_a_recording_that_was_never_finished_is_refused(tmp_path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, tone(1.0))
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", 0)
    path.write_bytes(content)
    refused(path, "never finished")


def test_a_wav_that_was_written_to_a_pipe_is_read_to_its_end(tmp_path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, tone(1.0))
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert len(read_audio(path)) == RATE


def test_samples_that_are_no_numbers_are_refused(tmp_path) -> None:
    for value in (np.nan, np.inf, -np.inf):
        wave = tone(1.0)
        wave[777] = value
        refused(write(tmp_path / "a.wav", wave, RATE, "FLOAT"), "not numbers")


def test_floats_in_the_scale_of_integers_are_refused(tmp_path) -> None:
    refused(write(tmp_path / "a.wav", 30000 * tone(1.0), RATE, "FLOAT"), r"within \[-1, 1\]")


def test_a_file_without_samples_is_refused(tmp_path) -> None:
    path = write(tmp_path / "a.wav", np.zeros(0, np.float32), RATE, "PCM_16")
    refused(path, "no audio samples")
    with pytest.raises(AudioError, match="no audio samples"):
        probe_audio(path)


def test_a_video_without_sound_is_refused(tmp_path) -> None:
    refused(write_video(tmp_path / "silent.mp4", None), "without a sound track")


def test_folders_pipes_and_missing_files_are_refused(tmp_path) -> None:
    refused(tmp_path, "is a folder")
    refused(tmp_path / "missing.wav", "does not exist")
    os.mkfifo(tmp_path / "pipe.wav")
    refused(tmp_path / "pipe.wav", "is a pipe")  # and does not wait for a writer


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, tone(0.1))

    def deny(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", deny)  # the superuser may read whatever its mode is
    refused(path, "Permission denied")


def test_a_stretch_outside_the_file_is_refused(tmp_path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, tone(2.0))
    refused(path, r"from 3.00 s, but the file lasts 2.00 s", start=3.0)
    refused(path, r"from 1.00 s to 4.00 s, but the file lasts 2.00 s", start=1.0, duration=3.0)
    refused(path, "must be 0 or more", start=-1.0)
    refused(path, "must be more than 0", duration=0.0)
    refused(path, "must be 0 or more", start=float("nan"))
    for name, codec in (("b.m4a", "aac"), ("b.mkv", "pcm_s16le")):
        video = write_video(tmp_path / name, codec, seconds=2.0)
        for start in (3.0, 1e8, 1e15, 1e300):
            refused(video, "is to be read from", start=start)
    # Manifests round their times.
    assert len(read_audio(path, start=1.0, duration=1.2)) == RATE
