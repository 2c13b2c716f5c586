"""What `speechjepa transcribe` says on stderr: a bar, what became of each file, and a summary."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from speechjepa.errors import AudioError

if TYPE_CHECKING:
    from speechjepa.inference.transcribe_files import Outcome, Recording

_Events = tuple[
    Callable[["Recording", int, int], None], Callable[[float], None], Callable[["Outcome"], None]
]


@contextmanager
def progress_bar() -> Iterator[_Events]:
    """Yield what to call when a file starts, goes on and ends: a bar on a terminal, and messages.

    Without a terminal only files that failed, were skipped or left alone are told.
    """
    if not sys.stderr.isatty():
        yield (lambda *_: None), (lambda _: None), tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from speechjepa.audio.files import probe_audio

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[done]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # Transcripts must reach stdout, not the console that the bar is on.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("", done="", rate="")
        started = perf_counter()

        def on_start(recording: Recording, number: int, num_files: int) -> None:
            nonlocal started
            started = perf_counter()
            try:
                total = probe_audio(recording.path).duration
            except AudioError:  # told when it is read
                total = None
            description = f"{number}/{num_files} {recording.path.name}"
            progress.reset(task, total=total, description=description, done="", rate="")

        def on_progress(seconds: float) -> None:
            rate = seconds / max(1e-6, perf_counter() - started)
            progress.update(
                task, completed=seconds, done=_minutes(seconds), rate=f"{rate:.0f} x real time"
            )

        def on_end(outcome: Outcome) -> None:
            tell(outcome)
            if outcome.result is not None:
                duration = outcome.result["duration"]
                rate = duration / max(1e-6, outcome.seconds)
                print(
                    f"{outcome.path}: {_minutes(duration)} of audio at {rate:.0f} x real time",
                    file=sys.stderr,
                )

        yield on_start, on_progress, on_end


def tell(outcome: Outcome) -> None:
    """Say why a file failed or was skipped, or what was left alone."""
    from speechjepa.data.readers.common import as_line

    path = as_line(str(outcome.path))
    if outcome.status == "failed":
        print(f"error: {path}: {outcome.message}", file=sys.stderr)
    elif outcome.message:
        print(f"{path}: {outcome.message}", file=sys.stderr)


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


@dataclass
class Tally:
    """Counts what became of the files, for the end."""

    done: int = 0
    failed: int = 0
    beside: int = 0
    """Transcripts that lie where a corpus keeps those of its recordings."""

    def add(self, outcome: Outcome) -> None:
        """Count one file."""
        self.done += outcome.status == "done"
        self.failed += outcome.status == "failed"
        self.beside += any(_is_label(path, outcome.path) for path in outcome.written)

    def tell(self, output_dir: str | None) -> None:
        """Say how many transcripts were written, and how many files failed."""
        from speechjepa.data.readers.common import as_line

        if output_dir is not None and self.done:
            many = "1 transcript" if self.done == 1 else f"{self.done} transcripts"
            print(f"{many} in {as_line(output_dir).rstrip('/')}/", file=sys.stderr)
        if self.beside:
            print(
                f"warning: transcripts lie beside their recordings ({self.beside}): the next "
                "`check` or `run` of this folder takes them for transcripts; correct them first, "
                "or write elsewhere",
                file=sys.stderr,
            )
        if self.failed:
            print(f"files that could not be transcribed: {self.failed}", file=sys.stderr)


def _is_label(written: Path, recording: Path) -> bool:
    """Say whether a corpus that is read from this folder takes a file for a transcript."""
    from speechjepa.data.readers.annotations import ANNOTATION_SUFFIXES

    is_text = written.suffix.lower() in (".txt", *ANNOTATION_SUFFIXES)
    stem, recording = written.resolve().with_suffix(""), recording.resolve()
    return is_text and stem in (recording.with_suffix(""), recording)
