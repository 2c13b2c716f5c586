"""How long a speaker's units last, by the units around them."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

Window = tuple[int | None, ...]


class Pace:
    """Durations of units as a speaker said them between the same neighbours.

    A stretch of units that was recorded is then spoken in the rhythm of the recording, so that
    whole words can be copied; with one duration for each unit the copies end every few frames.

    Args:
        units: (N,) units of the recordings, frame by frame.
        recordings: (N,) number of the recording that each frame is of.
    """

    CONTEXT = 3
    """Units on either side that are looked at; fewer where those were never said."""

    def __init__(self, units: NDArray[np.int64], recordings: NDArray[np.int64]) -> None:
        changes = (units[1:] != units[:-1]) | (recordings[1:] != recordings[:-1])
        starts = np.flatnonzero(np.append(True, changes))
        durations = np.diff(np.append(starts, len(units))).tolist()
        owners, said = recordings[starts].tolist(), units[starts].tolist()
        sums: dict[Window, list[float]] = defaultdict(lambda: [0.0, 0.0])
        padding: list[int | None] = [None] * self.CONTEXT
        first = 0
        while first < len(said):
            last = first
            while last < len(said) and owners[last] == owners[first]:
                last += 1
            sequence = [*padding, *said[first:last], *padding]
            for place, frames in enumerate(durations[first:last]):
                window = tuple(sequence[place : place + 2 * self.CONTEXT + 1])
                for inner in _narrower(window):
                    found = sums[inner]
                    found[0] += frames
                    found[1] += 1
            first = last
        self._means = {window: total / number for window, (total, number) in sums.items()}

    def frames(self, window: Window) -> float:
        """Return how long the unit in the middle of a window lasts (frames); 1 if never said.

        Args:
            window: 2 * `CONTEXT` + 1 units; None = before the first or after the last.
        """
        found = (self._means.get(inner) for inner in _narrower(window))
        return next((mean for mean in found if mean is not None), 1.0)


def _narrower(window: Window) -> list[Window]:
    """Return a window and those inside it, down to the unit alone."""
    return [window[i : len(window) - i] for i in range(len(window) // 2 + 1)]
