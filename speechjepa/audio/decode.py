"""Open one audio file as a source of mono blocks: soundfile first, PyAV as the second chance.

`speechjepa.audio.files` is the public face; this file knows the two libraries and what they get
wrong. soundfile is given an open file, not a name, so that it never guesses from the suffix. PyAV
may only use container formats that hold audio: without that list ffmpeg plays text files, and
follows playlists to other files.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import soundfile

from speechjepa.audio.headers import (
    TOLERANCE,
    refuse_shorter_than_declared,
    refuse_truncated,
    tag_bytes,
    truncated,
)
from speechjepa.audio.mono import MAX_PEAK, UNREADABLE, MonoMixer, Samples
from speechjepa.errors import AudioError

logger = logging.getLogger(__name__)

BLOCK_SAMPLES = 1 << 18
"""How many samples of each channel are decoded at a time."""
SETTLING = {"OPUS": 10.0, "MPEG_LAYER_III": 0.5}
"""How long before a stretch a decoder is started (seconds). Opus's speech mode predicts from what
it decoded before. Measured on 100 stretches of 8 minutes of field recordings at 24 kbit/s: started
at the stretch itself 25 come out exactly, 10 s before it 89 (the others with noise 48 dB below the
speech), 30 s before it all, at twice the time. A frame of mp3 takes bits from the frames before."""
LONGEST = 1e7
"""Four months (seconds): no recording is longer, and a header that says so does not know."""
MORE_BYTES = 8_000
"""What may follow the audio of an mp3, ogg or flac file without being audio."""
FRAME_MARKS = {
    "MP3": (b"ID3", *(bytes((0xFF, second)) for second in (0xFB, 0xFA, 0xF3, 0xF2))),
    "OGG": (b"OggS",),
    "FLAC": (b"fLaC",),
}
"""What frames, or another file's beginning, look like in formats that are streams."""
LEAST_GAP, LONGEST_GAP = 0.05, 4 * 3600.0
"""Gaps between the frames of a film that are silence, and that are a mistake (seconds)."""
HEADERLESS = frozenset({".raw", ".pcm", ".s16", ".s16le", ".sw", ".sln", ".ulaw", ".alaw"})
FFMPEG_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,loas,matroska,webm,mov,mp4,"
    "m4a,3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,mxf,nut,ogg,oma,rm,tak,tta,voc,w64,wav,wv,xwma"
)
FFMPEG_GUESSED_LENGTH = frozenset({"aac", "ac3", "amr", "amrnb", "amrwb", "dts", "eac3", "loas"})
"""Formats without a length: what ffmpeg says of it is a guess from the bit rate."""


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
        refuse_truncated(path, handle)
        sound, reason = _open_soundfile(handle)
        if sound is not None and sound.frames > LONGEST * sound.samplerate:
            sound.close()  # FLAC that was written to a pipe does not say how long it is
            sound = None
        if sound is not None:
            with sound:
                refuse_shorter_than_declared(path, handle, sound)
                yield _checked(path, _SoundfileSource(path, sound, handle))
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
    def __init__(self, path: Path, sound: soundfile.SoundFile, handle: IO[bytes]) -> None:
        self.path = path
        self.handle = handle
        self.sound = sound
        self.sample_rate = int(sound.samplerate)
        self.num_channels = int(sound.channels)
        self.num_samples: int | None = int(sound.frames)
        self.format = f"{sound.format} {sound.subtype}"

    def blocks(self, start: int, stop: int | None) -> Iterator[Samples]:
        total = int(self.sound.frames)
        stop = total if stop is None else min(stop, total)
        start = min(start, total)
        settling = SETTLING.get(self.sound.subtype, 0.0)
        position = max(0, start - round(settling * self.sample_rate))
        mono = MonoMixer(self.path, self.sample_rate)
        gain = self._gain()
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
                if gain != 1.0:
                    block *= gain
                skip = max(0, start - position)
                position += len(block)
                if skip < len(block):
                    yield mono(block[skip:])
        except soundfile.LibsndfileError as error:
            raise self._damaged(position, error.error_string) from error
        if stop - position > TOLERANCE * self.sample_rate:
            raise truncated(self.path, total / self.sample_rate, position / self.sample_rate)
        if position == total:
            self._refuse_more(total / self.sample_rate)

    def _gain(self) -> float:
        """Return what brings floating-point samples to full scale at most.

        Recorders write them so that nothing is cut off above it.
        """
        if self.sound.subtype not in ("FLOAT", "DOUBLE"):
            return 1.0
        state = os.fstat(self.handle.fileno())
        peak = _peak(str(self.path), state.st_size, state.st_mtime_ns)
        return 1.0 / peak if 1.0 < peak <= MAX_PEAK else 1.0

    def _refuse_more(self, seconds: float) -> None:
        """Refuse a file in which audio follows the end that its header declares.

        Two mp3 or ogg files that were joined byte by byte are such, of which libsndfile reads one.
        """
        if self.sound.format not in FRAME_MARKS:
            return
        size = os.fstat(self.handle.fileno()).st_size
        at = os.lseek(self.handle.fileno(), 0, os.SEEK_CUR)
        left = size - at - tag_bytes(self.handle, size)
        if left <= max(MORE_BYTES, size * min(1.0, 1.0 / max(seconds, 1e-3))):
            return
        # The library reads ahead, and what follows may be anything.
        following = os.pread(self.handle.fileno(), 1 << 17, max(4, at - (1 << 16)))
        after = os.pread(self.handle.fileno(), 1 << 12, at)
        marks = FRAME_MARKS[self.sound.format]
        if any(mark in (following if self.sound.format == "FLAC" else after) for mark in marks):
            raise AudioError(
                self.path,
                f"goes on after the {seconds:.1f} s that it declares: {left / size:.0%} of the "
                "file were not read.",
                "It may be two files joined, or its header is wrong: convert it with "
                "`ffmpeg -i IN OUT.wav`.",
            )

    def _damaged(self, position: int, reason: str) -> AudioError:
        return AudioError(
            self.path,
            f"is damaged or cut off after {position / self.sample_rate:.1f} s"
            f" ({reason.removeprefix('Error : ').rstrip('.')}).",
            UNREADABLE,
        )


@cache
def _peak(path: str, size: int, changed: int) -> float:
    """Return the largest magnitude in a file of floating-point samples that is in this state."""
    peak = 0.0
    with open(path, "rb") as handle, soundfile.SoundFile(handle.fileno(), closefd=False) as sound:
        for block in sound.blocks(BLOCK_SAMPLES, dtype="float32", always_2d=True):
            peak = max(peak, float(np.abs(block).max(initial=0.0)))
    return peak


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
        if len(container.streams.audio) > 1:
            _tell_tracks(path, len(container.streams.audio))
        if not container.streams.audio:
            raise AudioError(path, "is a video without a sound track.", "Leave it out.")
        if container.streams.audio[0].codec_context is None:
            raise AudioError(path, "is coded in a way that no decoder knows.", UNREADABLE)
        yield _PyavSource(path, container)


@lru_cache(maxsize=256)
def _tell_tracks(path: Path, count: int) -> None:
    """Say once that a file has several sound tracks."""
    logger.warning(
        "%s has %d sound tracks, of which the first is heard. For another: "
        "`ffmpeg -i IN -map 0:a:1 OUT.wav`.",
        path,
        count,
    )


class _PyavSource:
    def __init__(self, path: Path, container: Any) -> None:
        self.path = path
        self.container = container
        self.stream = container.streams.audio[0]
        self.sample_rate = int(self.stream.codec_context.sample_rate or 0)
        self.num_channels = int(self.stream.codec_context.channels or 0)
        self.format = f"{container.format.name} {self.stream.codec_context.name}"
        self.num_samples: int | None = None
        self.origin = self._origin()
        if container.format.name in FFMPEG_GUESSED_LENGTH:
            return
        if self.stream.duration and self.stream.time_base:
            begins = (self.stream.start_time or 0) * Fraction(self.stream.time_base) - self.origin
            seconds = self.stream.duration * Fraction(self.stream.time_base) + max(begins, 0)
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
                    position = min(self._position(frame), start)
                if frame.pts is not None:
                    for silence in self._gap(frame, position):
                        first, position = position, position + silence
                        heard = (position if stop is None else min(position, stop)) - first
                        if heard > max(0, start - first):
                            yield np.zeros(heard - max(0, start - first), np.float32)
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
            raise truncated(self.path, expected / self.sample_rate, found)

    def _seek(self, start: int) -> bool:
        """Jump close before `start` where time stamps are exact to the sample, else stay."""
        base = self.stream.time_base
        exact = base is not None and (1 / Fraction(base)) % self.sample_rate == 0
        if not exact or start < 10 * self.sample_rate:
            return False
        # Lossy decoders need some frames to settle: half a second is plenty.
        seconds = Fraction(start, self.sample_rate) - Fraction(1, 2)
        self.container.seek(int((seconds + self.origin) / base), stream=self.stream, backward=True)
        return True

    def _origin(self) -> Fraction:
        """Return where the file's time begins (seconds): a film's may begin before its sound."""
        if len(self.container.streams) > 1 and self.container.start_time is not None:
            return Fraction(self.container.start_time, 1_000_000)
        return (self.stream.start_time or 0) * Fraction(self.stream.time_base or 0)

    def _gap(self, frame: Any, position: int) -> Iterator[int]:
        """Yield lengths of silence up to a frame that begins later than the one before it ended."""
        missing = self._position(frame) - position
        if missing > LONGEST_GAP * self.sample_rate:
            at, gap = position / self.sample_rate, missing / self.sample_rate
            reason = f"has a gap of {gap:.0f} s at {at:.1f} s: its time stamps are wrong."
            raise AudioError(self.path, reason, UNREADABLE)
        if missing <= LEAST_GAP * self.sample_rate:
            return
        for first in range(0, missing, BLOCK_SAMPLES):
            yield min(missing - first, BLOCK_SAMPLES)

    def _position(self, frame: Any) -> int:
        if frame.pts is None:
            raise AudioError(self.path, "carries no time stamps.", UNREADABLE)
        seconds = frame.pts * Fraction(frame.time_base) - self.origin
        return round(seconds * self.sample_rate)
