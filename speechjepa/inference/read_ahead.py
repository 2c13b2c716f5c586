"""Read and encode many files together: the next ones are read while the present ones are encoded.

Short files share batches of like length. A file that is longer than a group is not read ahead to
its end: it is encoded on its own, as it is read.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from speechjepa.errors import SpeechJepaError
from speechjepa.inference.chunks import Chunk
from speechjepa.inference.voiced import chunk_logits, encode_chunks

if TYPE_CHECKING:
    from collections.abc import Callable

    from speechjepa.inference.transcribe import TranscriptionModel

Item = TypeVar("Item")

_GROUP_SECONDS = 240.0  # of audio that is read before any of it is encoded
_GROUP_FILES = 256


@dataclass
class _Read:
    """What was read of a file."""

    path: Path
    chunks: list[Chunk] = field(default_factory=list)
    rest: Iterator[Chunk] | None = None
    """What is still to be read, of a long file."""
    error: Exception | None = None


def encoded_files(
    model: TranscriptionModel,
    paths: Sequence[Path],
    open_chunks: Callable[[Path], Iterator[Chunk]],
    *,
    batch_samples: int,
) -> Iterator[Iterator[tuple[int, Tensor]]]:
    """Yield for each file an iterator over (samples done, logits (T, V)), to be used up in turn.

    The first group is of one batch, so that its results come early, the next ones are larger.

    Args:
        model: A fine-tuned model.
        paths: The files.
        open_chunks: Starts to read a file.
        batch_samples: Of one batch, padding included.
    """
    left = iter(paths)
    most = round(_GROUP_SECONDS * model.sample_rate)
    size = min(batch_samples, most)
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        coming: Future[list[_Read]] = reader.submit(_read_group, left, open_chunks, size)
        while group := coming.result():
            size = min(2 * size, most)
            coming = reader.submit(_read_group, left, open_chunks, size)
            yield from _encode_group(model, group, batch_samples)


def _encode_group(
    model: TranscriptionModel, group: Sequence[_Read], batch_samples: int
) -> Iterator[Iterator[tuple[int, Tensor]]]:
    short = [read for read in group if read.rest is None and read.error is None]
    chunks = [chunk for read in short for chunk in read.chunks]
    encoded = iter(encode_chunks(model, chunks, batch_samples))
    for read in group:
        if read.error is not None:
            yield _raise(read.error)
        elif read.rest is not None:
            following = chain(read.chunks, in_background(read.rest))
            yield chunk_logits(model, following, batch_samples=batch_samples)
        else:
            yield iter([(chunk.end, next(encoded)) for chunk in read.chunks])


def _raise(error: Exception) -> Iterator[tuple[int, Tensor]]:
    raise error
    yield  # makes it a generator, which raises when it is used


def _read_group(
    paths: Iterator[Path], open_chunks: Callable[[Path], Iterator[Chunk]], most: int
) -> list[_Read]:
    """Read files until they hold this many samples; the last one perhaps only in part."""
    group: list[_Read] = []
    samples = 0
    for path in paths:
        read = _Read(path)
        group.append(read)
        try:
            chunks = open_chunks(path)
            for chunk in chunks:
                read.chunks.append(chunk)
                samples += chunk.end - chunk.start
                if samples >= most:
                    read.rest = chunks
                    break
        except (SpeechJepaError, OSError) as error:  # told when its turn comes
            read.error = error
        if samples >= most or len(group) == _GROUP_FILES:
            break
    return group


def in_background(items: Iterable[Item], ahead: int = 4) -> Iterator[Item]:
    """Yield items that a thread makes, a few of them ahead; what it raises is raised here."""
    made: queue.Queue[tuple[Item | None, BaseException | None, bool]] = queue.Queue(ahead)
    stopped = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None, bool]) -> None:
        while not stopped.is_set():
            try:
                made.put(entry, timeout=0.1)
                return
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put((item, None, False))
                if stopped.is_set():
                    return
            put((None, None, True))
        except BaseException as error:  # raised again where the items are used
            put((None, error, True))

    thread = threading.Thread(target=make, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error, is_end = made.get()
            if error is not None:
                raise error
            if is_end:
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
