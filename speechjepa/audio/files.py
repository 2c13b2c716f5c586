"""Read audio files as mono float32, whatever they hold: whole, in part, or as a stream."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from math import gcd
from os import PathLike
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike

from speechjepa.audio.decode import Samples, Source, open_source
from speechjepa.errors import AudioError

AUDIO_SUFFIXES = frozenset(
    ".aac .aif .aifc .aiff .amr .au .avi .caf .flac .flv .m4a .m4b .mka .mkv .mov .mp3 .mp4 .mpeg"
    " .mpg .oga .ogg .ogv .opus .sph .ts .voc .w64 .wav .wave .webm .wma .wmv .3gp .3g2".split()
)
"""Suffixes (lower case) of the files that a folder reader takes for audio."""

OVERSHOOT = 0.5
"""How far a stretch may reach beyond the end of its file (seconds), as Kaldi allows: manifests
round their times."""
LONGEST = 1e8
"""No recording lasts three years (seconds); times beyond are slips, and overflow in the codecs."""
_CONTEXT = 0.05
"""Audio on each side of a stretch that the resampler hears before it is cut (seconds)."""


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """What the header of an audio file says."""

    sample_rate: int
    """Hz, before resampling."""
    num_channels: int
    duration: float
    """Seconds."""
    format: str
    """Container and coding, such as `WAV PCM_16` or `OGG OPUS`."""


def read_audio(
    path: str | PathLike[str],
    *,
    sample_rate: int = 16000,
    start: float = 0.0,
    duration: float | None = None,
) -> Samples:
    """Read an audio file, or a stretch of it, as one channel.

    A stretch equals the same samples of the whole file: exactly at the file's own rate, to within
    1e-6 where it is resampled. Long Opus files are the exception: far from their start a stretch
    may differ by noise 48 dB below the speech, since their decoder never quite forgets. Only the
    stretch is decoded (the file is searched, except in containers whose time stamps are coarser
    than a sample, which are decoded from their start).

    Args:
        path: The file: anything soundfile or PyAV (ffmpeg) decodes, video included.
        sample_rate: Rate of the result (Hz).
        start: Where the stretch starts (seconds).
        duration: How long it is (seconds); None means to the end of the file. It may reach up to
            0.5 s beyond the end of the file, and is then cut there.

    Returns:
        (S,) float32 in [-1, 1], the mean of the channels; the first of two that cancel each other
        out.

    Raises:
        AudioError: The file is missing, not audio, empty, cut off, damaged or holds samples that
            are not numbers, or the stretch lies outside it.
    """
    blocks = list(_read_blocks(Path(path), sample_rate, start, duration))
    return np.concatenate(blocks)


def stream_audio(
    path: str | PathLike[str],
    *,
    sample_rate: int = 16000,
    start: float = 0.0,
    duration: float | None = None,
    block_seconds: float = 30.0,
) -> Iterator[Samples]:
    """Yield an audio file, or a stretch of it, block by block; together they equal `read_audio`.

    Memory stays bounded however long the file is.

    Args:
        path: The file.
        sample_rate: Rate of the result (Hz).
        start: Where the stretch starts (seconds).
        duration: How long it is (seconds); None means to the end of the file.
        block_seconds: Length of each block but the last (seconds).

    Yields:
        (S,) float32 in [-1, 1].

    Raises:
        AudioError: As `read_audio`; a file that turns out to be cut off raises at its end.
    """
    size = max(1, round(block_seconds * sample_rate))
    kept: list[Samples] = []
    num_kept = 0
    for block in _read_blocks(Path(path), sample_rate, start, duration):
        kept.append(block)
        num_kept += len(block)
        if num_kept < size:
            continue
        joined = np.concatenate(kept)
        whole = num_kept - num_kept % size
        for first in range(0, whole, size):
            yield joined[first : first + size]
        kept, num_kept = [joined[whole:].copy()], num_kept - whole
    if num_kept:
        yield np.concatenate(kept)


def probe_audio(path: str | PathLike[str]) -> AudioInfo:
    """Read what the header of an audio file says; decode it only if the header lacks the length.

    Raises:
        AudioError: The file is missing, not audio, empty, or visibly cut off.
    """
    path = Path(path)
    with open_source(path) as source:
        num_samples = source.num_samples
        if num_samples is None:
            num_samples = sum(len(block) for block in source.blocks(0, None))
        if num_samples <= 0:
            raise _no_samples(path)
        return AudioInfo(
            sample_rate=source.sample_rate,
            num_channels=source.num_channels,
            duration=num_samples / source.sample_rate,
            format=source.format,
        )


def write_wav(path: str | PathLike[str], waveform: ArrayLike, sample_rate: int = 16000) -> None:
    """Write a 16-bit mono WAV file.

    Args:
        path: Where; its folder must exist.
        waveform: (S,) in [-1, 1]; what lies outside is clipped.
        sample_rate: Hz.
    """
    samples = np.asarray(waveform, dtype=np.float32)
    if samples.ndim != 1:
        raise ValueError(f"`waveform` must be (S,), but has the shape {samples.shape} instead")
    with open(path, "wb") as handle:
        soundfile.write(handle, np.clip(samples, -1.0, 1.0), sample_rate, "PCM_16", format="WAV")


def _read_blocks(
    path: Path, sample_rate: int, start: float, duration: float | None
) -> Iterator[Samples]:
    """Yield the resampled samples of a stretch, and check afterwards that it was all there."""
    if not 0 <= start <= LONGEST:
        raise AudioError(path, f"is to be read from {start} s: the start must be 0 or more.")
    if duration is not None and not 0 < duration <= LONGEST:
        raise AudioError(path, f"is to be read for {duration} s: it must be more than 0.")
    first = round(start * sample_rate)
    count = None if duration is None else max(1, round(duration * sample_rate))
    num_read = 0
    with open_source(path) as source:
        total = source.num_samples
        with closing(_resample(source, sample_rate, first, count)) as blocks:
            for block in blocks:
                if len(block):
                    num_read += len(block)
                    # Lossy codecs and resampling overshoot a little.
                    yield np.clip(block, -1.0, 1.0)
        length = None if total is None else total / source.sample_rate
    lasts = "" if length is None else f", but the file lasts {length:.2f} s"
    if num_read == 0:
        if first == 0:
            raise _no_samples(path)
        raise AudioError(path, f"is to be read from {start:.2f} s{lasts}.", "Check its times.")
    if count is not None and count - num_read > OVERSHOOT * sample_rate:
        end = start + (duration or 0.0)
        raise AudioError(
            path, f"is to be read from {start:.2f} s to {end:.2f} s{lasts}.", "Check its times."
        )


def _resample(
    source: Source, sample_rate: int, first: int, count: int | None
) -> Generator[Samples, None, None]:
    """Yield samples [first, first + count) of the source at `sample_rate`."""
    rate = source.sample_rate
    if rate == sample_rate:
        yield from source.blocks(first, None if count is None else first + count)
        return
    # Input and output sample grids meet every `step_in` input and `step_out` output samples:
    # starting there, a stretch is resampled exactly as it would be within the whole file.
    step_in, step_out = rate // gcd(rate, sample_rate), sample_rate // gcd(rate, sample_rate)
    margin = math.ceil(_CONTEXT * rate)
    begin = max(0, first // step_out - math.ceil(margin / step_in))
    stop = None if count is None else math.ceil((first + count) * rate / sample_rate) + margin
    skip = first - begin * step_out
    left = count
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32")

    def cut(block: Samples) -> Samples:
        nonlocal skip, left
        dropped = min(skip, len(block))
        skip -= dropped
        block = block[dropped:]
        if left is not None:
            block = block[:left]
            left -= len(block)
        return block

    for block in source.blocks(begin * step_in, stop):
        yield cut(stream.resample_chunk(block))
    yield cut(stream.resample_chunk(np.zeros(0, np.float32), last=True))


def _no_samples(path: Path) -> AudioError:
    return AudioError(path, "holds no audio samples.", "Leave it out, or record it again.")
