"""The one record that every reader produces and every stage consumes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECOGNISED = "speechjepa.recognised"
"""In `extra` of an utterance whose text a model wrote: it is normalised already."""


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """A stretch of one audio file, with whatever is known about it."""

    id: str
    """Unique within its corpus."""
    audio_path: Path
    """Absolute path of the audio file."""
    start: float = 0.0
    """Where the stretch starts in the file (seconds)."""
    duration: float | None = None
    """How long it is (seconds); None means to the end of the file."""
    text: str | None = None
    """Transcript as written in the corpus, not normalised; None = unlabelled."""
    speaker: str | None = None
    language: str | None = None
    split: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    """Other columns of the corpus (translation, target_audio, key, phonetic, ...)."""
    source: str = ""
    """Where it was declared, as `file:line`, for error messages."""
