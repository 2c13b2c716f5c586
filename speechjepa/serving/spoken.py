"""Translated speech: on disk while it is made, and as the body of an answer."""

from __future__ import annotations

import io
import json
import tempfile
import threading
import time
import wave
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
from fastapi.responses import StreamingResponse
from numpy.typing import NDArray

SPEECH_FORMATS = {"wav": "audio/wav", "flac": "audio/flac", "opus": "audio/ogg"}
"""What speech is sent as, with the media types."""
_ENCODINGS = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}
_BLOCK = 1 << 16


def pcm(waveform: NDArray[np.float32]) -> bytes:
    """Return samples (S,) as 16-bit little-endian ones."""
    return (waveform.clip(-1.0, 1.0) * 32767.0).round().astype("<i2").tobytes()


class SpokenFile:
    """Speech of any length, in a file without a name, which is gone once nobody holds it.

    One thread may write while another reads what was written.

    Args:
        folder: Where it lies.
        sample_rate: Hz.
    """

    def __init__(self, folder: Path, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.num_samples = 0
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)
        self._lock = threading.Lock()

    def put(self, waveform: NDArray[np.float32], first: int) -> None:
        """Write samples (S,) from one of the positions that were not written yet."""
        with self._lock:
            self._file.seek(2 * first)  # what lies before it is silence
            self._file.write(pcm(waveform))
            self.num_samples = first + len(waveform)
            self._file.truncate(2 * self.num_samples)  # longer, where nothing was written

    def get(self, first: int, count: int) -> bytes:
        """Return 16-bit samples, fewer at the end."""
        with self._lock:
            self._file.seek(2 * first)
            return self._file.read(2 * count)

    def blocks(self) -> Iterator[bytes]:
        """Yield all samples."""
        for first in range(0, self.num_samples, _BLOCK):
            yield self.get(first, _BLOCK)

    def wav(self) -> Iterator[bytes]:
        """Yield a wav file."""
        yield self._header()
        yield from self.blocks()

    @property
    def wav_size(self) -> int:
        """Bytes of the wav file."""
        return len(self._header()) + 2 * self.num_samples

    def _header(self) -> bytes:
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.sample_rate)
            file.setnframes(self.num_samples)
        header = bytearray(buffer.getvalue())  # says that nothing follows, as nothing was written
        header[4:8] = (36 + 2 * self.num_samples).to_bytes(4, "little")
        header[40:44] = (2 * self.num_samples).to_bytes(4, "little")
        return bytes(header)

    def encode(self, format_name: str, folder: Path) -> IO[bytes]:
        """Return a file without a name, in one of `SPEECH_FORMATS` but wav, from its beginning."""
        container, subtype = _ENCODINGS[format_name]
        file: IO[bytes] = tempfile.TemporaryFile(dir=folder)
        with soundfile.SoundFile(
            file, "w", self.sample_rate, 1, format=container, subtype=subtype
        ) as sound:
            for block in self.blocks():
                sound.write(np.frombuffer(block, "<i2"))
        file.seek(0)
        return file

    def zip(self, name: str, described: dict[str, Any], folder: Path) -> IO[bytes]:
        """Return a zip of `name`.wav and `name`.json, from its beginning."""
        file: IO[bytes] = tempfile.TemporaryFile(dir=folder)
        with zipfile.ZipFile(file, "w") as archive:
            info = zipfile.ZipInfo(f"{name}.wav", time.localtime()[:6])
            with archive.open(info, "w", force_zip64=True) as entry:
                for block in self.wav():
                    entry.write(block)
            text = json.dumps({**described, "speech": f"{name}.wav"}, ensure_ascii=False)
            archive.writestr(f"{name}.json", text + "\n")
        file.seek(0)
        return file


def speech_response(spoken: SpokenFile, format_name: str, folder: Path) -> StreamingResponse:
    """Return speech as an answer in one of `SPEECH_FORMATS`."""
    if format_name == "wav":
        answer = StreamingResponse(spoken.wav(), media_type=SPEECH_FORMATS["wav"])
        answer.headers["Content-Length"] = str(spoken.wav_size)
        return answer
    return file_response(spoken.encode(format_name, folder), SPEECH_FORMATS[format_name])


def file_response(file: IO[bytes], media_type: str) -> StreamingResponse:
    """Return what is left of a file as an answer, and close it."""

    def blocks() -> Iterator[bytes]:
        with file:
            while block := file.read(_BLOCK):
                yield block

    return StreamingResponse(blocks(), media_type=media_type)
