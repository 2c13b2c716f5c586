"""Counts and times in the text format of Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper bounds of the times that are counted together (seconds)."""


class Metrics:
    """What a server did since it started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._times: dict[str, list[int]] = {}
        self._sums: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count an answer and the time to its end (seconds)."""
        with self._lock:
            self._requests[path, status] += 1
            counts = self._times.setdefault(path, [0] * (len(BUCKETS) + 1))
            counts[bisect_left(BUCKETS, seconds)] += 1
            self._sums[path] += seconds  # type: ignore[assignment]

    def add(self, name: str, amount: float) -> None:
        """Add to one of the totals."""
        with self._lock:
            self._totals[name] += amount  # type: ignore[assignment]

    def render(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return everything as text.

        Args:
            gauges: Help and value of each number that is measured now.
        """
        with self._lock:
            lines = [*self._render_requests(), *self._render_times()]
            for name, (what, help_text) in _TOTALS.items():
                lines += _family(name, "counter", help_text)
                lines.append(f"speechjepa_{name} {self._totals[what]:.10g}")
        for name, (help_text, value) in gauges.items():
            lines += _family(name, "gauge", help_text)
            lines.append(f"speechjepa_{name} {value:.10g}")
        return "\n".join(lines) + "\n"

    def _render_requests(self) -> Iterable[str]:
        yield from _family("requests_total", "counter", "Answers by path and status code.")
        for (path, status), count in sorted(self._requests.items()):
            labels = f'path="{path}",status="{status}"'
            yield f"speechjepa_requests_total{{{labels}}} {count}"

    def _render_times(self) -> Iterable[str]:
        name = "speechjepa_request_seconds"
        yield from _family("request_seconds", "histogram", "Time to the end of the answer.")
        for path, counts in sorted(self._times.items()):
            total = 0
            for bound, count in zip((*BUCKETS, "+Inf"), counts, strict=True):
                total += count
                yield f'{name}_bucket{{path="{path}",le="{bound}"}} {total}'
            yield f'{name}_sum{{path="{path}"}} {self._sums[path]:.6f}'
            yield f'{name}_count{{path="{path}"}} {total}'


_TOTALS = {
    "audio_seconds_total": (
        "audio",
        "Audio of files that were transcribed or translated, in seconds.",
    ),
    "live_audio_seconds_total": ("live_audio", "Audio heard on live connections, in seconds."),
    "upload_bytes_total": ("bytes", "Bytes of recordings received."),
    "dropped_total": ("dropped", "Requests whose client went away before the answer."),
}


def _family(name: str, kind: str, help_text: str) -> list[str]:
    return [f"# HELP speechjepa_{name} {help_text}", f"# TYPE speechjepa_{name} {kind}"]
