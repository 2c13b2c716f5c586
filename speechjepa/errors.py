"""Error types: every message names the thing that is wrong and says what to do next."""

from __future__ import annotations

from os import PathLike
from typing import Any


class SpeechJepaError(Exception):
    """Base of every error this package raises on purpose; the command line prints it plainly."""


class ConfigError(SpeechJepaError):
    """A recipe, a setting or a flag cannot be used."""


class DataError(SpeechJepaError):
    """A manifest, a transcript or a folder of data cannot be used.

    Args:
        message: What is wrong and what to do about it.
        path: The file it concerns, put in front of the message.
        line: The 1-based line in that file.
    """

    def __init__(
        self, message: str, *, path: str | PathLike[str] | None = None, line: int | None = None
    ) -> None:
        where = "" if path is None else f"{path}:" if line is None else f"{path}:{line}:"
        super().__init__(f"{where} {message}".strip())
        self.path = path
        self.line = line


class AudioError(SpeechJepaError):
    """An audio file cannot be read.

    Args:
        path: The file.
        reason: Why it cannot be read.
        advice: What to do about it.
    """

    def __init__(self, path: str | PathLike[str], reason: str, advice: str = "") -> None:
        super().__init__(f"{path}: {reason}" + (f" {advice}" if advice else ""))
        self.path = path
        self.reason = reason
        self.heard: dict[str, Any] | None = None
        """What `transcribe` wrote of it before the damage; None = nothing."""


class ModelError(SpeechJepaError):
    """A bundle or checkpoint cannot be loaded, or cannot do what was asked of it."""


class CollapseError(SpeechJepaError):
    """Training stopped: the representation collapsed, or the loss is no longer finite."""
