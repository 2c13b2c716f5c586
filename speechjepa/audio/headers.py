"""What the headers of audio files promise, and whether it is there: libraries often do not look."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import IO

import soundfile

from speechjepa.errors import AudioError

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
            if 0 < length < UNKNOWN_LENGTH and more > TOLERANCE and not _are_chunks(handle, after):
                raise AudioError(
                    path,
                    f"declares {length / bytes_per_second:.1f} s of audio, but goes on for another"
                    f" {more:.1f} s; the sizes in a WAV file end at 4 GB.",
                    "Repair the header, for example with `sox --ignore-length IN.wav OUT.wav`.",
                )
            return
        position += length + (length & 1)


def _are_chunks(handle: IO[bytes], position: int) -> bool:
    """Return whether RIFF chunks, or nothing but zeros, stand from here to the end of the file."""
    size = os.fstat(handle.fileno()).st_size
    start = position
    while position + 8 <= size:
        name, length = struct.unpack("<4sI", os.pread(handle.fileno(), 8, position))
        if not name.isascii() or not name.decode("ascii").isprintable():
            break
        position += 8 + length + (length & 1)
    if position >= size - 8 and position <= size + 1:
        return True
    return not any(os.pread(handle.fileno(), 1 << 20, start))


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
    """Return how many bytes of tags stand at the end of a file: ID3v1's, and APE's before it."""
    tags = 128 if os.pread(handle.fileno(), 3, max(0, size - 128)) == b"TAG" else 0
    footer = os.pread(handle.fileno(), 32, max(0, size - tags - 32))
    if footer[:8] == b"APETAGEX":
        (length,) = struct.unpack("<I", footer[12:16])
        tags += length + 32
    return tags
