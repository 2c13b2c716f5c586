"""Progress bars on stderr, silent when nobody watches."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items behind a progress bar on stderr; no bar when stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(
        items, description=description, total=total, console=Console(stderr=True), transient=True
    )


@contextlib.contextmanager
def audio_bar(description: str, total: int) -> Iterator[Callable[[int, float], None]]:
    """Show files and hours of audio per hour on stderr; no bar when stderr is not a terminal.

    Args:
        description: What is done to the audio.
        total: Number of files or utterances.

    Yields:
        What to call as they are done: with how many, and with their audio (seconds).
    """
    if not sys.stderr.isatty():
        yield lambda files, seconds: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} hours of audio per hour"),
    )
    start = time.monotonic()
    heard = 0.0
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total, rate=0.0)

        def advance(files: int, seconds: float) -> None:
            nonlocal heard
            heard += seconds
            bar.update(task, advance=files, rate=heard / max(1e-3, time.monotonic() - start))

        yield advance
