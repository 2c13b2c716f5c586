"""Decode a corpus once into one memory-mapped file of 16-bit samples.

Decoding small compressed files runs at about 100 times real time on one core; training reads the
same audio tens of times at several hundred, so it decodes once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import numpy as np

from speechjepa.audio.files import stream_audio
from speechjepa.data.readers.common import as_text
from speechjepa.data.utterance import Utterance
from speechjepa.errors import AudioError, DataError
from speechjepa.progress import audio_bar

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
MIN_SECONDS = 0.05
SPOOL_BYTES = 16_000_000
"""Decoded utterances that take more than this (8 minutes) wait for their turn on the disk."""
ABANDONED_SECONDS = 24 * 3600
"""A half-written cache that nothing was added to for so long has lost its process."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An utterance that could not be used, and why."""

    id: str
    audio_path: str
    source: str
    reason: str


class AudioCache:
    """Decoded utterances, one after the other in one int16 file.

    Attributes:
        utterances: Those that could be decoded, in the order they were given.
        lengths: (N,) samples of each.
        skipped: Those that could not.
        sample_rate: Hz.
        folder: Where it lies.
    """

    def __init__(
        self,
        folder: Path,
        utterances: Sequence[Utterance],
        offsets: np.ndarray,
        skipped: Sequence[Skipped],
        sample_rate: int,
    ) -> None:
        self.folder = folder
        self.utterances = list(utterances)
        self.offsets = offsets
        self.lengths = np.diff(offsets)
        self.skipped = list(skipped)
        self.sample_rate = sample_rate
        path = folder / "audio.i16"
        self._samples = np.memmap(path, dtype=np.int16, mode="r")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the samples out of a copy for another process, which maps the file itself."""
        return {name: value for name, value in vars(self).items() if name != "_samples"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._samples = np.memmap(self.folder / "audio.i16", dtype=np.int16, mode="r")

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def seconds(self) -> float:
        """Seconds of audio it holds."""
        return float(self.offsets[-1]) / self.sample_rate

    def waveform(self, index: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return samples (S,) float32 in [-1, 1] of one utterance, or of a stretch of it."""
        first, last = int(self.offsets[index]), int(self.offsets[index + 1])
        stop = last if stop is None else min(last, first + stop)
        return self._samples[first + start : stop].astype(np.float32) / 32767.0


def build_cache(
    utterances: Sequence[Utterance],
    cache_dir: Path,
    *,
    sample_rate: int = 16000,
    num_threads: int | None = None,
) -> AudioCache:
    """Decode utterances, or open the cache that an earlier call made of the same files.

    An utterance that cannot be decoded is skipped and listed, never fatal.

    Args:
        utterances: What to decode.
        cache_dir: Folder of caches; each corpus gets its own folder in it.
        sample_rate: Hz.
        num_threads: Decoding threads; None = one per core.

    Raises:
        DataError: None of the utterances could be decoded, or the cache cannot be written.
    """
    folder = cache_dir / _fingerprint(utterances, sample_rate)
    index = _read_index(folder)
    if index is None:
        _decode_all(utterances, folder, sample_rate, num_threads or os.cpu_count() or 1)
        index = _read_index(folder)
        if index is None:
            raise DataError("the audio cache vanished while it was written", path=folder)
    kept = [utterances[i] for i in index["kept"]]
    skipped = [Skipped(**entry) for entry in index["skipped"]]
    cache = AudioCache(folder, kept, np.array(index["offsets"], np.int64), skipped, sample_rate)
    logger.info(
        "audio cache: %.2f h in %d utterances, %.0f MB in %s%s",
        cache.seconds / 3600,
        len(cache),
        cache.offsets[-1] * 2 / 1e6,
        folder,
        f"; {len(skipped)} skipped" if skipped else "",
    )
    return cache


def write_skipped(skipped: Sequence[Skipped], path: Path) -> None:
    """Write skipped utterances to a JSON-lines file after those it holds, each utterance once."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for entry in skipped:
        # File names that are not UTF-8 become JSON escapes.
        line = json.dumps(vars(entry), ensure_ascii=False)
        lines.append(line.encode("utf-8", "backslashreplace"))
    # A dictionary drops repetitions and keeps the order.
    path.write_bytes(b"".join(line + b"\n" for line in dict.fromkeys(lines) if line))


def _read_index(folder: Path) -> dict[str, Any] | None:
    """Return a cache's index; None when there is no cache, or not the whole of it."""
    if not folder.exists():
        return None
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if (folder / "audio.i16").stat().st_size == 2 * index["offsets"][-1]:
            return index
        reason = "audio.i16 has the wrong size"
    except (FileNotFoundError, ValueError, TypeError, LookupError) as error:
        reason = str(error)
    logger.warning("%s is damaged (%s): decoding again", folder, reason)
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _fingerprint(utterances: Sequence[Utterance], sample_rate: int) -> str:
    digest = hashlib.sha256(f"{FORMAT_VERSION} {sample_rate}".encode())
    stats: dict[Path, str] = {}
    for utterance in utterances:
        path = utterance.audio_path
        if path not in stats:
            try:
                stat = path.stat()
                stats[path] = f"{stat.st_size} {stat.st_mtime_ns}"
                if not os.access(path, os.R_OK):
                    stats[path] += " unreadable"  # is skipped now, and used once it may be read
            except OSError:
                stats[path] = "missing"
        key = (utterance.id, str(path), stats[path], utterance.start, utterance.duration)
        digest.update(repr(key).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _decode_all(
    utterances: Sequence[Utterance], folder: Path, sample_rate: int, num_threads: int
) -> None:
    partial = folder.with_name(f"{folder.name}.partial-{uuid.uuid4().hex[:12]}")
    _remove_abandoned(folder.parent)
    try:
        partial.mkdir(parents=True)
        _fill(utterances, partial, sample_rate, num_threads)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.exists():  # else another process finished first
                raise
    except OSError as error:
        raise DataError(
            f"the audio cache cannot be written: {error}", path=folder.parent
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_abandoned(cache_dir: Path) -> None:
    """Remove what killed processes left: nobody else would, and it may be many gigabytes."""
    for partial in cache_dir.glob("*.partial-*"):
        with contextlib.suppress(OSError):
            if time.time() - (partial / "audio.i16").stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(partial, ignore_errors=True)


def _fill(
    utterances: Sequence[Utterance], folder: Path, sample_rate: int, num_threads: int
) -> None:
    kept: list[int] = []
    offsets = [0]
    skipped: list[Skipped] = []
    logger.info("decoding %d utterances into %s", len(utterances), folder.parent)
    file = (folder / "audio.i16").open("wb")
    with file, audio_bar("decoding", len(utterances)) as advance:
        for index, result in enumerate(_decode(utterances, folder, sample_rate, num_threads)):
            if isinstance(result, str):
                utterance = utterances[index]
                skipped.append(
                    Skipped(
                        id=utterance.id,
                        audio_path=as_text(str(utterance.audio_path)),
                        source=utterance.source,
                        reason=result,
                    )
                )
                advance(1, 0.0)
                continue
            with result:
                num_samples = result.tell() // 2
                result.seek(0)
                shutil.copyfileobj(result, file)
            kept.append(index)
            offsets.append(offsets[-1] + num_samples)
            advance(1, num_samples / sample_rate)
    if not kept:
        first = skipped[0].reason if skipped else "there are none"
        raise DataError(f"none of {len(utterances)} utterances can be decoded: {first}")
    index_json = {"kept": kept, "offsets": offsets, "skipped": [vars(s) for s in skipped]}
    (folder / "index.json").write_text(json.dumps(index_json), encoding="utf-8")


def _decode(
    utterances: Sequence[Utterance], folder: Path, sample_rate: int, num_threads: int
) -> Iterator[IO[bytes] | str]:
    """Yield int16 samples as an open file, written to its end, or the reason there are none.

    In order, a few utterances ahead. Recordings may last hours: what is long waits on the disk,
    in `folder`, not in memory.
    """

    def decode(utterance: Utterance) -> IO[bytes] | str:
        spool = SpooledTemporaryFile(max_size=SPOOL_BYTES, dir=str(folder))
        reason = ""
        try:
            for block in stream_audio(
                utterance.audio_path,
                sample_rate=sample_rate,
                start=utterance.start,
                duration=utterance.duration,
            ):
                spool.write((block * 32767.0).round().astype(np.int16).tobytes())
        except AudioError as error:
            reason = str(error)
        seconds = spool.tell() / 2 / sample_rate
        if not reason and seconds >= MIN_SECONDS:
            return spool
        spool.close()
        return reason or f"only {seconds:.3f} s of audio"

    pool = ThreadPoolExecutor(num_threads)
    ahead: deque[Future[IO[bytes] | str]] = deque()
    try:
        for utterance in utterances:
            ahead.append(pool.submit(decode, utterance))
            if len(ahead) > 2 * num_threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
