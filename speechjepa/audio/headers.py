"""What the headers of audio files promise, and whether it is there: libraries often do not look."""

from __future__ import annotations

import logging
import os
import re
import struct
from functools import lru_cache
from pathlib import Path
from typing import IO

import soundfile

from speechjepa.errors import AudioError

logger = logging.getLogger(__name__)

TOLERANCE = 0.1
"""How much audio a header may promise beyond what is there (seconds)."""
UNKNOWN_LENGTH = 0x7FFF0000
"""Chunks that claim this many bytes or more were written by a program that did not know yet."""
_SHOULD_BE = re.compile(r": (\d+) \(should be (\d+)\)")
"""How libsndfile's log writes a chunk that reaches beyond the end of its file (bytes)."""
_SPHERE_COUNT = re.compile(rb"^sample_count -i (\d+)", re.MULTILINE)


def truncated(path: Path, declared: float, found: float) -> AudioError:
    return AudioError(
        path,
        f"is cut off: it declares {declared:.1f} s of audio, but only {found:.1f} s are there.",
        "Copy it again from the recorder, or cut it properly with an audio editor.",
    )


def refuse_truncated(path: Path, handle: IO[bytes]) -> None:
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
                    raise truncated(path, length / bytes_per_second, left / bytes_per_second)
            if length == 0 and left > TOLERANCE * bytes_per_second > 0:
                raise AudioError(
                    path,
                    "was never finished by its recorder: its header declares no audio, but"
                    f" {left} bytes follow.",
                    "Repair the header, for example with `sox --ignore-length IN.wav OUT.wav`.",
                )
            after = position + length + (length & 1)
            more = (size - after) / bytes_per_second if bytes_per_second else 0.0
            if 0 < length < UNKNOWN_LENGTH and more > TOLERANCE:
                _look_behind(path, handle, after, length / bytes_per_second, more)
            return
        position += length + (length & 1)


def _look_behind(path: Path, handle: IO[bytes], after: int, seconds: float, more: float) -> None:
    """Refuse a WAV file beyond 4 GB, whose sizes begin at 0 again; say what else is not read.

    Args:
        path: The file.
        handle: It, open.
        after: Where its samples end, says its header (bytes).
        seconds: How long they last, says its header.
        more: How long what follows would last.
    """
    told = f"declares {seconds:.1f} s of audio, but goes on for another {more:.1f} s"
    repair = "Repair the header, for example with `sox --ignore-length IN.wav OUT.wav`."
    if os.fstat(handle.fileno()).st_size >= 1 << 32:
        raise AudioError(path, f"{told}: the sizes in a WAV file end at 4 GB.", repair)
    if not any(_are_chunks(handle, place) for place in (after, after - 1)):
        _tell_behind(f"{path} {told}, which is not read. If that is sound: {repair}")


@lru_cache(maxsize=256)
def _tell_behind(message: str) -> None:
    logger.warning(message)


def _are_chunks(handle: IO[bytes], position: int) -> bool:
    """Return whether chunks or tags stand here, and then nothing else but zeros."""
    size = os.fstat(handle.fileno()).st_size
    while position + 8 <= size:
        name, length = struct.unpack("<4sI", os.pread(handle.fileno(), 8, position))
        if name[:3] in (b"ID3", b"TAG"):
            return True
        if not name.isascii() or not name.decode("ascii").isprintable():
            return not any(os.pread(handle.fileno(), 1 << 20, position))
        position += 8 + length + (length & 1)
    return position <= size + 1 or size - position < 8


def refuse_shorter_than_declared(path: Path, handle: IO[bytes], sound: soundfile.SoundFile) -> None:
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
        raise truncated(path, found + missing, found)


def tag_bytes(handle: IO[bytes], size: int) -> int:
    """Return how many bytes at the end of a file are tags (ID3, APE, Lyrics3) or zeros."""
    end = size
    while end > 0:
        last = _last_tag(handle, end)
        if not last:
            break
        end -= last
    return size - max(0, end)


def _last_tag(handle: IO[bytes], end: int) -> int:
    """Return how long the tag is that ends here, or how many zeros do; 0 if neither."""

    def before(count: int, offset: int = 0) -> bytes:
        return os.pread(handle.fileno(), count, max(0, end - count - offset))

    if before(128)[:3] == b"TAG":
        return 128
    if before(32)[:8] == b"APETAGEX":
        return int(struct.unpack("<I", before(32)[12:16])[0]) + 32
    if before(10)[:3] == b"3DI":
        size = 0
        for byte in before(4):  # seven bits each
            size = size << 7 | byte & 0x7F
        return size + 20
    if before(9) == b"LYRICS200" and before(6, 9).isdigit():
        return int(before(6, 9)) + 15
    block = before(1 << 16)
    zeros = len(block) - len(block.rstrip(b"\0"))
    return zeros if zeros >= 128 else 0
