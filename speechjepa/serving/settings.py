"""What a server allows and uses."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

from speechjepa.errors import ConfigError
from speechjepa.inference.transcribe import TranscribeConfig


@dataclass(frozen=True, kw_only=True)
class ServingConfig:
    """Limits and sizes of a server; each limit is answered with its own status code."""

    max_upload_mb: float = 500.0
    """Largest request (millions of bytes); what is larger gets 413 while it is still being sent."""
    max_minutes: float = 240.0
    """Longest recording (minutes); what is longer gets 413, by its header before it is decoded."""
    workers: int = field(default_factory=lambda: min(4, num_cores()))
    """Recordings transcribed at once; they share the cores, and one alone has them all."""
    max_waiting: int = 64
    """Requests that may wait for a worker; one more gets 503."""
    max_streams: int = 4
    """Live connections at once; one more is told to come back."""
    chunk_seconds: float = 0.32
    """How much live audio is heard at a time (seconds)."""
    idle_seconds: float = 30.0
    """A client that sends nothing for so long while it should is let go (seconds)."""
    allowed_hosts: tuple[str, ...] = ()
    """Names by which the server may be called; empty = any. Without it a web page whose name is
    made to point here (DNS rebinding) could read what this server answers."""
    transcribe: TranscribeConfig = field(default_factory=TranscribeConfig)
    """How recordings are transcribed, where a request does not say otherwise."""

    def __post_init__(self) -> None:
        for name in ("max_upload_mb", "max_minutes", "chunk_seconds", "idle_seconds"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"`{name}` must be above 0, but is {value} instead.")
        for name, least in (("workers", 1), ("max_waiting", 0), ("max_streams", 0)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"`{name}` must be at least {least}, but is {value} instead.")

    @property
    def max_upload_bytes(self) -> int:
        """Bytes of the largest request."""
        return round(self.max_upload_mb * 1e6)

    @property
    def max_seconds(self) -> float:
        """Seconds of the longest recording."""
        return 60 * self.max_minutes


def num_cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1
