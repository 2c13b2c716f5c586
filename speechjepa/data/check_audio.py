"""What the data doctor hears: it decodes every file once, in bounded memory."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechjepa.audio.files import probe_audio, stream_audio
from speechjepa.data.findings import Place, place
from speechjepa.data.utterance import Utterance
from speechjepa.errors import AudioError

FULL_SCALE = 0.99
LOUDNESS_SECONDS = 0.1

Progress = Callable[[int, float], None]
"""Called with (files done, seconds of audio done) since the last call."""

Stretch = tuple[Path, float, float | None]
"""What is decoded: file, start, duration."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was heard in the stretch of one utterance."""

    seconds: float = 0.0
    sample_rate: int = 0
    loudest_dbfs: float = -np.inf
    """Root mean square of the loudest 0.1 s, in decibels below full scale."""
    clipped_share: float = 0.0
    """Share of the samples at full scale."""
    digest: str = ""
    """Fingerprint of the decoded samples."""
    missing_seconds: float = 0.0
    """How far the utterance reaches beyond the end of its file."""
    problem: str = ""
    """Why it cannot be read; empty when it can."""
    decoded: bool = True
    """False when only the header was read."""


class _Listener:
    """Collects what is needed to know of one stretch, block by block."""

    def __init__(self, start: float, duration: float | None, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.first = round(start * sample_rate)
        self.stop = None if duration is None else self.first + round(duration * sample_rate)
        self.num_samples = 0
        self.num_clipped = 0
        self.loudest = 0.0
        self.digest = hashlib.blake2b(digest_size=16)

    def hear(self, block: np.ndarray, position: int) -> None:
        """Take in the part of a block, which starts at sample `position`, that is ours."""
        stop = len(block) if self.stop is None else min(len(block), self.stop - position)
        x = block[max(0, self.first - position) : max(0, stop)]  # (S,)
        if not len(x):
            return
        self.num_samples += len(x)
        self.num_clipped += int(np.count_nonzero(np.abs(x) >= FULL_SCALE))
        window = min(len(x), round(LOUDNESS_SECONDS * self.sample_rate))
        windows = x[: len(x) // window * window].reshape(-1, window)
        self.loudest = max(self.loudest, float(np.square(windows).mean(axis=1).max()))
        self.digest.update(np.round(x * 32767.0).astype("<i4").tobytes())

    def result(self, end: int) -> Measurement:
        """Return what was heard of a file that ended at sample `end`."""
        beyond = 0 if self.stop is None else max(0, self.stop - max(end, self.first))
        return Measurement(
            seconds=self.num_samples / self.sample_rate,
            sample_rate=self.sample_rate,
            loudest_dbfs=10 * float(np.log10(self.loudest)) if self.loudest else -np.inf,
            clipped_share=self.num_clipped / max(1, self.num_samples),
            digest=self.digest.hexdigest(),
            missing_seconds=beyond / self.sample_rate,
        )


def measure(
    utterances: Sequence[Utterance],
    *,
    num_workers: int = 2,
    decode: bool = True,
    progress: Progress | None = None,
) -> dict[Stretch, Measurement]:
    """Listen to utterances, each file once; a file that cannot be read is a measurement too.

    Args:
        utterances: What to listen to; the same stretch may come several times.
        num_workers: Decoding threads.
        decode: False reads only the headers: durations and rates, nothing about the sound.
        progress: Told of every file.

    Returns:
        A measurement of each stretch, found by `stretch_of(utterance)`.
    """
    files: dict[Path, list[Stretch]] = defaultdict(list)
    for stretch in dict.fromkeys(map(stretch_of, utterances)):
        files[stretch[0]].append(stretch)
    measure_file = _listen_to_file if decode else _probe_file
    found: dict[Stretch, Measurement] = {}
    pool = ThreadPoolExecutor(num_workers)
    try:
        futures: list[Future[dict[Stretch, Measurement]]] = [
            pool.submit(measure_file, path, stretches) for path, stretches in files.items()
        ]
        for future in as_completed(futures):
            result = future.result()
            found.update(result)
            if progress is not None:
                progress(1, sum(m.seconds for m in result.values()))
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def stretch_of(utterance: Utterance) -> Stretch:
    """Return the key of an utterance's measurement."""
    return utterance.audio_path, utterance.start, utterance.duration


def _listen_to_file(path: Path, stretches: Sequence[Stretch]) -> dict[Stretch, Measurement]:
    try:
        sample_rate = probe_audio(path).sample_rate
        listeners = [_Listener(start, duration, sample_rate) for _, start, duration in stretches]
        position = 0
        for block in stream_audio(path, sample_rate=sample_rate):
            for listener in listeners:
                listener.hear(block, position)
            position += len(block)
    except AudioError as error:
        return dict.fromkeys(stretches, Measurement(problem=error.reason))
    return {s: heard.result(position) for s, heard in zip(stretches, listeners, strict=True)}


def _probe_file(path: Path, stretches: Sequence[Stretch]) -> dict[Stretch, Measurement]:
    try:
        info = probe_audio(path)
    except AudioError as error:
        return dict.fromkeys(stretches, Measurement(problem=error.reason))
    found = {}
    for stretch in stretches:
        _, start, duration = stretch
        left = max(0.0, info.duration - start)
        seconds = left if duration is None else min(duration, left)
        found[stretch] = Measurement(
            seconds=seconds,
            sample_rate=info.sample_rate,
            missing_seconds=0.0 if duration is None else duration - seconds,
            decoded=False,
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Heard:
    """An utterance, the split it is in, and what was heard."""

    utterance: Utterance
    split: str
    sound: Measurement

    def place(self, detail: str = "") -> Place:
        """Return where it was declared."""
        return place(self.utterance, self.split, detail)
