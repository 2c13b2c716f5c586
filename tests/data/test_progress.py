"""Bars tell how fast audio is gone through, to those who watch."""

from __future__ import annotations

import io
import re
import sys
from types import SimpleNamespace

import pytest

from speechjepa import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("watched", [True, False])
def test_the_bar_counts_files_and_hours_of_audio_per_hour(monkeypatch, watched):
    stderr = Terminal() if watched else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    clock = iter([0.0, 2.0, 2.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with progress.audio_bar("decoding", 3) as advance:
        advance(1, 600.0)
        advance(1, 0.0)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stderr.getvalue())
    assert ("2/3 300 hours of audio per hour" in plain) == watched
    assert bool(plain) == watched
