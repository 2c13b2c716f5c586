"""Open one audio file as a source of mono blocks: soundfile first, PyAV as the second chance.

`speechjepa.audio.files` is the public face; this file knows the two libraries and what they get
wrong. soundfile is given an open file, not a name, so that it never guesses from the suffix. PyAV
may only use container formats that hold audio: without that list ffmpeg plays text files, and
follows playlists to other files.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import soundfile

from speechjepa.audio.mono import UNREADABLE, MonoMixer, Samples
from speechjepa.errors import AudioError

BLOCK_SAMPLES = 1 << 18
"""How many samples of each channel are decoded at a time."""
OPUS_SETTLING = 10.0
"""How long before a stretch an Opus decoder is started (seconds). Its speech mode predicts from
what it decoded before. Measured on 100 stretches of 8 minutes of field recordings at 24 kbit/s:
started at the stretch itself 25 come out exactly, 10 s before it 89 (the others with noise 48 dB
below the speech), 30 s before it all, at twice the time."""
TOLERANCE = 0.1
"""How much audio a header may promise beyond what is there (seconds)."""
HEADERLESS = frozenset({".raw", ".pcm", ".s16", ".s16le", ".sw", ".sln", ".ulaw", ".alaw"})
FFMPEG_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,loas,matroska,webm,mov,mp4,"
    "m4a,3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,mxf,nut,ogg,oma,rm,tak,tta,voc,w64,wav,wv,xwma"
)
FFMPEG_GUESSED_LENGTH = frozenset({"aac", "ac3", "amr", "amrnb", "amrwb", "dts", "eac3", "loas"})
"""Formats without a length: what ffmpeg says of it is a guess from the bit rate."""
UNKNOWN_LENGTH = 0x7FFF0000
"""Chunks that claim this many bytes or more were written by a program that did not know yet."""
_SHOULD_BE = re.compile(r": (\d+) \(should be (\d+)\)")
"""How libsndfile's log writes a chunk that reaches beyond the end of its file (bytes)."""
_SPHERE_COUNT = re.compile(rb"^sample_count -i (\d+)", re.MULTILINE)


class Source(Protocol):
    """An open audio file."""

    sample_rate: int
    num_channels: int
    num_samples: int | None
    format: str

    def blocks(self, start: int, stop: int | None) -> Iterator[Samples]:
        """Yield mono samples [start, stop) in order, at the file's own rate; only once."""
        ...


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open an audio file; AudioError if it cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            kind = "a folder" if path.is_dir() else "a pipe or a device"
            raise AudioError(path, f"is {kind}, not an audio file.")
        handle = open(path, "rb")
    except FileNotFoundError:
        raise AudioError(path, "does not exist.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AudioError(path, f"cannot be opened ({reason}).") from error
    with handle:
        if os.fstat(handle.fileno()).st_size == 0:
            raise AudioError(path, "is empty (0 bytes).", "Copy it again or leave it out.")
        _refuse_truncated(path, handle)
        sound, reason = _open_soundfile(handle)
        if sound is not None:
            with sound:
                _refuse_shorter_than_declared(path, handle, sound)
                yield _checked(path, _SoundfileSource(path, sound))
        else:
            handle.seek(0)
            with _open_pyav(path, handle, reason) as source:
                yield _checked(path, source)


def _checked(path: Path, source: Source) -> Source:
    if not 1000 <= source.sample_rate <= 1_000_000 or source.num_channels < 1:
        raise AudioError(
            path,
            f"declares a sample rate of {source.sample_rate} Hz and {source.num_channels} channels"
            ", which is not speech audio.",
            UNREADABLE,
        )
    return source


# soundfile ------------------------------------------------------------------------------------


def _open_soundfile(handle: IO[bytes]) -> tuple[soundfile.SoundFile | None, str]:
    try:
        return soundfile.SoundFile(handle.fileno(), closefd=False), ""
    except soundfile.LibsndfileError as error:
        return None, str(error.error_string)


class _SoundfileSource:
    def __init__(self, path: Path, sound: soundfile.SoundFile) -> None:
        self.path = path
        self.sound = sound
        self.sample_rate = int(sound.samplerate)
        self.num_channels = int(sound.channels)
        self.num_samples: int | None = int(sound.frames)
        self.format = f"{sound.format} {sound.subtype}"

    def blocks(self, start: int, stop: int | None) -> Iterator[Samples]:
        total = int(self.sound.frames)
        stop = total if stop is None else min(stop, total)
        start = min(start, total)
        settling = OPUS_SETTLING if self.sound.subtype == "OPUS" else 0.0
        position = max(0, start - round(settling * self.sample_rate))
        mono = MonoMixer(self.path, self.sample_rate)
        try:
            if position > 0:
                self.sound.seek(position)
            while position < stop:
                if self.sound.tell() != position:  # in a damaged mp3 a search may end anywhere
                    raise self._damaged(position, "its blocks are not where they should be")
                count = min(BLOCK_SAMPLES, stop - position)
                block = self.sound.read(count, dtype="float32", always_2d=True)
                if len(block) == 0:
                    break
                skip = max(0, start - position)
                position += len(block)
                if skip < len(block):
                    yield mono(block[skip:])
        except soundfile.LibsndfileError as error:
            raise self._damaged(position, error.error_string) from error
        if stop - position > TOLERANCE * self.sample_rate:
            raise _truncated(self.path, total / self.sample_rate, position / self.sample_rate)

    def _damaged(self, position: int, reason: str) -> AudioError:
        return AudioError(
            self.path,
            f"is damaged or cut off after {position / self.sample_rate:.1f} s"
            f" ({reason.removeprefix('Error : ').rstrip('.')}).",
            UNREADABLE,
        )


def _truncated(path: Path, declared: float, found: float) -> AudioError:
    return AudioError(
        path,
        f"is cut off: it declares {declared:.1f} s of audio, but only {found:.1f} s are there.",
        "Copy it again from the recorder, or cut it properly with an audio editor.",
    )


def _refuse_truncated(path: Path, handle: IO[bytes]) -> None:
    # libsndfile reads what is left of a truncated WAV or Ogg file and says nothing.
    size = os.fstat(handle.fileno()).st_size
    magic = os.pread(handle.fileno(), 12, 0)
    if magic[:4] == b"RIFF" and magic[8:] == b"WAVE":
        _refuse_truncated_wav(path, handle, size)
    elif magic[:4] == b"OggS":
        tail_start = max(0, size - (1 << 17))
        tail = os.pread(handle.fileno(), size - tail_start, tail_start)
        page = tail.rfind(b"OggS")
        header = tail[page : page + 27]
        if page >= 0:
            table = tail[page + 27 : page + 27 + (header[26] if len(header) == 27 else 255)]
            end = page + 27 + len(table) + sum(table)
            if len(header) < 27 or len(table) < header[26] or end > len(tail):
                raise AudioError(
                    path,
                    "is cut off in the middle of a block of audio.",
                    "Copy it again from the recorder, or cut it properly with an audio editor.",
                )


def _refuse_truncated_wav(path: Path, handle: IO[bytes], size: int) -> None:
    position, bytes_per_second = 12, 0
    while position + 8 <= size:
        name, length = struct.unpack("<4sI", os.pread(handle.fileno(), 8, position))
        position += 8
        if name == b"fmt " and length >= 12:
            chunk = os.pread(handle.fileno(), 12, position)
            if len(chunk) == 12:
                bytes_per_second = struct.unpack("<I", chunk[8:])[0]
        if name == b"data":
            left = size - position
            # Programs that write to a pipe cannot know the length and write the largest number.
            if length < UNKNOWN_LENGTH and bytes_per_second:
                if length - left > TOLERANCE * bytes_per_second:
                    raise _truncated(path, length / bytes_per_second, left / bytes_per_second)
            if length == 0 and left > TOLERANCE * bytes_per_second > 0:
                raise AudioError(
                    path,
                    "was never finished by its recorder: its header declares no audio, but"
                    f" {left} bytes follow.",
                    "Repair the header, for example with `sox --ignore-length IN.wav OUT.wav`.",
                )
            return
        position += length + (length & 1)


def _refuse_shorter_than_declared(
    path: Path, handle: IO[bytes], sound: soundfile.SoundFile
) -> None:
    """Refuse AIFF, AU, W64, RF64 and SPHERE files that end early; libsndfile only notes it."""
    size = os.fstat(handle.fileno()).st_size
    found = sound.frames / sound.samplerate
    missing = 0.0  # seconds
    if sound.format in ("AIFF", "AU", "W64", "RF64"):
        for promised, present in (map(int, m) for m in _SHOULD_BE.findall(sound.extra_info)):
            if promised < UNKNOWN_LENGTH:
                missing = max(missing, (promised - present) / size * found)
    elif sound.format == "NIST":
        count = _SPHERE_COUNT.search(os.pread(handle.fileno(), 1024, 0))
        missing = int(count[1]) / sound.samplerate - found if count else 0.0
    if missing > TOLERANCE:
        raise _truncated(path, found + missing, found)


# PyAV -----------------------------------------------------------------------------------------


@contextmanager
def _open_pyav(path: Path, handle: IO[bytes], first_reason: str) -> Iterator[Source]:
    import av

    try:
        container = av.open(
            handle, metadata_errors="ignore", options={"format_whitelist": FFMPEG_FORMATS}
        )
    except (av.error.FFmpegError, ValueError, OSError) as error:
        if path.suffix.lower() in HEADERLESS:
            raise AudioError(
                path,
                "has no header that says its sample rate and format.",
                "Convert it, for 16-bit samples at 16 kHz with"
                " `ffmpeg -f s16le -ar 16000 -ac 1 -i IN.raw OUT.wav`.",
            ) from error
        if "regular file" in first_reason:  # libsndfile's words for an mp3 it cannot follow
            first_reason = "not a sound file, or damaged"
        raise AudioError(
            path, f"is not audio that can be decoded ({first_reason.rstrip('.')}).", UNREADABLE
        ) from error
    with container:
        if not container.streams.audio:
            raise AudioError(path, "is a video without a sound track.", "Leave it out.")
        if container.streams.audio[0].codec_context is None:
            raise AudioError(path, "is coded in a way that no decoder knows.", UNREADABLE)
        yield _PyavSource(path, container)


class _PyavSource:
    def __init__(self, path: Path, container: Any) -> None:
        self.path = path
        self.container = container
        self.stream = container.streams.audio[0]
        self.sample_rate = int(self.stream.codec_context.sample_rate or 0)
        self.num_channels = int(self.stream.codec_context.channels or 0)
        self.format = f"{container.format.name} {self.stream.codec_context.name}"
        self.num_samples: int | None = None
        if container.format.name in FFMPEG_GUESSED_LENGTH:
            return
        if self.stream.duration and self.stream.time_base:
            seconds = self.stream.duration * self.stream.time_base
            self.num_samples = round(seconds * self.sample_rate)
        elif container.duration and len(container.streams) == 1:
            self.num_samples = round(container.duration * self.sample_rate / 1_000_000)

    def blocks(self, start: int, stop: int | None) -> Iterator[Samples]:
        import av

        # Changes the sample type only. Not to planes: PyAV crashes on more than 8 of them.
        resampler = av.AudioResampler(format="flt")
        mono = MonoMixer(self.path, self.sample_rate)
        position: int | None = 0
        try:
            if self._seek(start):
                position = None
            for frame in self.container.decode(self.stream):
                if frame.sample_rate != self.sample_rate:
                    raise AudioError(self.path, "changes its sample rate midway.", UNREADABLE)
                if position is None:
                    position = self._position(frame)
                for part in resampler.resample(frame):
                    samples = np.asarray(part.to_ndarray(), dtype=np.float32)
                    block = mono(samples.reshape(-1, part.layout.nb_channels))
                    first, position = position, position + len(block)
                    last = len(block) if stop is None else stop - first
                    piece = block[max(0, start - first) : max(0, last)]
                    if len(piece):
                        yield piece
                if stop is not None and position >= stop:
                    return
        except (av.error.FFmpegError, ValueError) as error:
            at = (position or 0) / self.sample_rate
            raise AudioError(
                self.path, f"is damaged after {at:.1f} s ({error}).", UNREADABLE
            ) from error
        expected = self.num_samples if stop is None else min(stop, self.num_samples or stop)
        # A container rounds its duration, and lossy codecs pad: half a second is not a loss.
        if expected is not None and expected - (position or 0) > 0.5 * self.sample_rate:
            found = (position or 0) / self.sample_rate
            raise _truncated(self.path, expected / self.sample_rate, found)

    def _seek(self, start: int) -> bool:
        """Jump close before `start` where time stamps are exact to the sample, else stay."""
        base = self.stream.time_base
        exact = base is not None and (1 / Fraction(base)) % self.sample_rate == 0
        if not exact or start < 10 * self.sample_rate:
            return False
        # Lossy decoders need some frames to settle: half a second is plenty.
        seconds = Fraction(start, self.sample_rate) - Fraction(1, 2)
        self.container.seek(
            (self.stream.start_time or 0) + int(seconds / base), stream=self.stream, backward=True
        )
        return True

    def _position(self, frame: Any) -> int:
        if frame.pts is None:
            raise AudioError(self.path, "carries no time stamps.", UNREADABLE)
        seconds = (frame.pts - (self.stream.start_time or 0)) * Fraction(frame.time_base)
        return round(seconds * self.sample_rate)
