"""Audio as it comes in: raw samples or wav through a pipe, or a microphone."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import soxr

from speechjepa.audio.mono import MonoMixer, Samples
from speechjepa.errors import AudioError, ConfigError

logger = logging.getLogger(__name__)

RAW_RATE = 16000
"""Sample rate of raw input (Hz); 16 bits, little-endian, one channel."""
_PIPE = Path("standard input")
_AT_ONCE = 1 << 16  # bytes
_LONGEST_HEADER = 1 << 20  # bytes before the samples of a wav
_FOREIGN = {
    b"OggS": "Ogg",
    b"fLaC": "FLAC",
    b"ID3": "MP3",
    b"\xff\xfb": "MP3",
    b"\x1aE\xdf\xa3": "Matroska or WebM",
    b"FORM": "AIFF",
    b"caff": "CAF",
    b"RF64": "RF64",
}
_ADVICE = "Decode it first: `ffmpeg -i FILE -f s16le -ar 16000 -ac 1 - | speechjepa transcribe ...`"


class Pipe(Protocol):
    """Bytes that come in, such as `sys.stdin.buffer`."""

    def read1(self, count: int, /) -> bytes:
        """Return at most so many bytes, as soon as there are any; none at the end."""


class _Format(NamedTuple):
    """How samples are written."""

    rate: int
    num_channels: int
    dtype: str
    """As numpy's; "i3" for 24 bits."""

    @property
    def width(self) -> int:
        """Bytes of one sample of every channel."""
        return int(self.dtype[-1]) * self.num_channels


_RAW = _Format(RAW_RATE, 1, "<i2")


def read_pipe(pipe: Pipe, sample_rate: int) -> Iterator[Samples]:
    """Yield the samples (S,) of a pipe as they come, mono and at `sample_rate`.

    Args:
        pipe: Raw 16-bit little-endian mono at 16 kHz; or wav, which its first bytes tell, of any
            rate, channels and sample type, with or without its length in the header.
        sample_rate: Of the result (Hz).

    Raises:
        AudioError: It is empty, another kind of file, or its header is damaged.
    """
    start = _read_exactly(pipe, 12)
    layout, left = _RAW, None
    if not start:
        raise AudioError(_PIPE, "is empty.", "Look at what the program before the | said.")
    if start[:4] == b"RIFF" and start[8:] == b"WAVE":
        layout, left = _read_header(pipe)
        start = b""
    elif start[4:8] == b"ftyp":
        raise AudioError(_PIPE, "is MP4, not raw samples or wav.", _ADVICE)
    else:
        for magic, name in _FOREIGN.items():
            if start.startswith(magic):
                raise AudioError(_PIPE, f"is {name}, not raw samples or wav.", _ADVICE)
        logger.info("standard input is taken as raw samples: 16 bits, mono, %d Hz", RAW_RATE)
    resample = None
    if layout.rate != sample_rate:
        resample = soxr.ResampleStream(layout.rate, sample_rate, 1, dtype="float32")
    for samples in _decode(pipe, layout, start, left):
        yield samples if resample is None else resample.resample_chunk(samples)
    if resample is not None:
        yield resample.resample_chunk(np.zeros(0, np.float32), last=True)


def _read_exactly(pipe: Pipe, count: int) -> bytes:
    """Return the next bytes, fewer only at the end."""
    read = b""
    while len(read) < count:
        more = pipe.read1(count - len(read))
        if not more:
            break
        read += more
    return read


def _read_header(pipe: Pipe) -> tuple[_Format, int | None]:
    """Return the format of a wav, and the bytes of its samples if its header says."""
    layout = None
    for _ in range(64):
        chunk = _read_exactly(pipe, 8)
        if len(chunk) < 8:
            break
        name, size = struct.unpack("<4sI", chunk)
        if name == b"data":
            if layout is None:
                break
            # Programs that write to a pipe do not know the length.
            return layout, None if size == 0 or size >= 0x7FFF0000 else size
        if size > _LONGEST_HEADER:
            break
        content = _read_exactly(pipe, size + (size & 1))
        if name == b"fmt ":
            layout = _parse_format(content)
    raise AudioError(_PIPE, "starts as wav, but its header is damaged or cut off.", _ADVICE)


def _parse_format(content: bytes) -> _Format:
    if len(content) < 16:
        raise AudioError(_PIPE, "starts as wav, but its header is damaged or cut off.", _ADVICE)
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", content[:16])
    if kind == 0xFFFE and len(content) >= 26:  # extensible: the kind stands further on
        kind = struct.unpack("<H", content[24:26])[0]
    known = {(1, 8): "u1", (1, 16): "<i2", (1, 24): "i3", (1, 32): "<i4"}
    known |= {(3, 32): "<f4", (3, 64): "<f8"}
    if (kind, bits) not in known or not 1 <= channels <= 64 or not 1000 <= rate <= 1_000_000:
        raise AudioError(
            _PIPE, f"is wav of kind {kind}, {bits} bits, {channels} channels, {rate} Hz.", _ADVICE
        )
    return _Format(rate, channels, known[kind, bits])


def _decode(pipe: Pipe, layout: _Format, start: bytes, left: int | None) -> Iterator[Samples]:
    waiting = start
    mono = MonoMixer(_PIPE, layout.rate)
    while True:
        whole = len(waiting) // layout.width * layout.width
        if whole:
            samples = _numbers(waiting[:whole], layout.dtype).reshape(-1, layout.num_channels)
            yield np.clip(mono(samples), -1.0, 1.0)
            waiting = waiting[whole:]
        count = _AT_ONCE if left is None else min(_AT_ONCE, left)
        more = pipe.read1(count) if count else b""
        if not more:
            return
        waiting += more
        left = None if left is None else left - len(more)


def _numbers(content: bytes, dtype: str) -> np.ndarray:
    """Return samples in [-1, 1] as float32."""
    if dtype == "i3":
        parts = np.frombuffer(content, np.uint8).reshape(-1, 3)
        shifted = np.zeros((len(parts), 4), np.uint8)
        shifted[:, 1:] = parts
        return (shifted.view("<i4")[:, 0] / 2**31).astype(np.float32)
    values = np.frombuffer(content, dtype)
    if dtype == "u1":
        return ((values.astype(np.float32)) - 128) / 128
    if dtype.startswith("<f"):
        return values.astype(np.float32)
    return (values / 2.0 ** (8 * values.itemsize - 1)).astype(np.float32)


def read_microphone(device: str, sample_rate: int, block_seconds: float) -> Iterator[Samples]:
    """Yield blocks (S,) of what a microphone hears, for ever.

    Args:
        device: Name or number of the device; empty = the system's default.
        sample_rate: Of the result (Hz); a device that knows other rates only is resampled.
        block_seconds: Length of a block (seconds).

    Raises:
        ConfigError: sounddevice, PortAudio or the device is missing, with what to do.
    """
    sounddevice = _import_sounddevice()
    name: int | str | None = int(device) if device.isdecimal() else device or None
    try:
        info = sounddevice.query_devices(name, "input")
        try:
            sounddevice.check_input_settings(device=name, channels=1, samplerate=sample_rate)
            rate = sample_rate
        except sounddevice.PortAudioError:
            rate = round(info["default_samplerate"])
        stream = sounddevice.InputStream(device=name, channels=1, samplerate=rate, dtype="float32")
    except (sounddevice.PortAudioError, ValueError) as error:
        raise ConfigError(
            f"no microphone can be opened ({error}). Plug one in and allow its use, or name one of "
            "those that `python -m sounddevice` lists: --mic NAME"
        ) from error
    logger.info("listening to %s at %d Hz; Ctrl-C ends", info["name"], rate)
    resample = None
    if rate != sample_rate:
        resample = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32")
    with stream:
        while True:
            block, overflowed = stream.read(max(1, round(block_seconds * rate)))
            if overflowed:
                logger.warning("some audio was lost: this machine is too slow for the model")
            samples = np.ascontiguousarray(block[:, 0])
            yield samples if resample is None else resample.resample_chunk(samples)


def _import_sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise ConfigError(
            'a microphone needs sounddevice: install it with `pip install "speechjepa[mic]"`'
        ) from error
    except OSError as error:  # the package is there, the library is not
        raise ConfigError(
            f"a microphone needs the PortAudio library ({error}): install it, on Debian and Ubuntu "
            "with `apt install libportaudio2`"
        ) from error
    return sounddevice
