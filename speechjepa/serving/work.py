"""Work in threads: bounded, told about as it goes on, and stopped when nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from speechjepa.serving.answers import Busy


class Stopped(Exception):
    """Raised inside work that nobody waits for any more."""


Tell = Callable[[Any], None]
"""What work calls with whatever it found; it raises `Stopped` when the work is to end."""


class Places:
    """A number of places; who finds none is sent away.

    Args:
        count: How many.
        busy: What is said to who finds none.
    """

    def __init__(self, count: int, busy: str) -> None:
        self.count = count
        self.taken = 0
        self._busy = busy
        self._lock = threading.Lock()

    def take(self) -> Callable[[], None]:
        """Take a place and return what gives it back; giving back twice does no harm.

        Raises:
            Busy: There is none.
        """
        with self._lock:
            if self.taken >= self.count:
                raise Busy(self._busy)
            self.taken += 1
        given_back = False

        def give_back() -> None:
            nonlocal given_back
            with self._lock:
                self.taken -= not given_back
                given_back = True

        return give_back

    @contextmanager
    def taken_place(self) -> Iterator[None]:
        """Take a place for the length of a block."""
        give_back = self.take()
        try:
            yield
        finally:
            give_back()


@dataclass(frozen=True)
class _End:
    result: Any = None
    error: BaseException | None = None


class Job:
    """One piece of work; made by `Workers.start`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[Any] = asyncio.Queue()
        self._stop = threading.Event()
        self.future: Future[None] | None = None
        self.result: Any = None
        self.is_running = False

    def tell(self, news: Any) -> None:
        """Hand something found to who waits; `Stopped` if nobody does."""
        if self._stop.is_set():
            raise Stopped
        self._loop.call_soon_threadsafe(self._news.put_nowait, news)

    def stop(self) -> None:
        """End the work, at its next `tell` or before it begins; who waits is told at once."""
        self._stop.set()
        if self.future is not None:
            self.future.cancel()
        self._end(_End(error=Stopped()))

    async def news(self) -> AsyncIterator[Any]:
        """Yield what the work tells; then its `result` is there, or its error is raised."""
        while True:
            item = await self._news.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                self.result = item.result
                return
            yield item

    def run(self, work: Callable[[Tell], Any], on_end: Callable[[], None]) -> None:
        """Do the work, in a thread; who waits is told last, when `on_end` has cleaned up."""
        self.is_running = True
        try:
            if self._stop.is_set():
                raise Stopped
            end = _End(result=work(self.tell))
        except BaseException as error:  # told to who waits, not swallowed
            end = _End(error=error)
        self.is_running = False
        on_end()
        self._end(end)

    def _end(self, end: _End) -> None:
        self._loop.call_soon_threadsafe(self._news.put_nowait, end)


class Workers:
    """Threads that do jobs in the order of their arrival.

    Args:
        count: How many threads.
        initializer: Called in each before its first job.
        name: What the threads are called.
    """

    def __init__(
        self, count: int, *, name: str, initializer: Callable[[], None] | None = None
    ) -> None:
        self._executor = ThreadPoolExecutor(count, name, initializer)
        self._lock = threading.Lock()
        self._jobs: set[Job] = set()
        self._is_stopping = False

    @property
    def num_running(self) -> int:
        """Jobs that a thread is doing now."""
        with self._lock:
            return sum(job.is_running for job in self._jobs)

    def start(self, work: Callable[[Tell], Any], on_end: Callable[[], None]) -> Job:
        """Start a job when a thread is free.

        Args:
            work: What to do, given what to call with what it finds.
            on_end: Called once when the work has ended, however it ends, or will never begin.
        """
        job = Job()
        with self._lock:
            self._jobs.add(job)

        def ended(future: Future[None]) -> None:
            with self._lock:
                self._jobs.discard(job)
            if future.cancelled():
                on_end()

        job.future = self._executor.submit(job.run, work, on_end)
        job.future.add_done_callback(ended)
        if self._is_stopping:
            job.stop()
        return job

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what a function returns that takes a moment; it cannot be stopped."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, function, *args)

    def stop(self) -> None:
        """Stop every job, those to come included; the threads may go on for a while."""
        self._is_stopping = True
        with self._lock:
            jobs = list(self._jobs)
        for job in jobs:
            job.stop()

    def close(self) -> None:
        """Stop every job and wait for the threads to end."""
        self.stop()
        self._executor.shutdown(wait=True, cancel_futures=True)
