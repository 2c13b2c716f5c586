"""How long utterances are whose corpus does not say it."""

from __future__ import annotations

from dataclasses import replace

from speechjepa.audio.files import probe_audio
from speechjepa.data.utterance import Utterance
from speechjepa.errors import AudioError


def with_duration(utterance: Utterance) -> Utterance:
    """Fill in how long an utterance is that goes on to the end of its file.

    Raises:
        AudioError: The file cannot be read, or ends before the utterance starts.
    """
    if utterance.duration is not None:
        return utterance
    duration = probe_audio(utterance.audio_path).duration - utterance.start
    if duration <= 0:
        raise AudioError(utterance.audio_path, f"it ends before {utterance.start} s")
    return replace(utterance, duration=duration)


def seconds_of(utterance: Utterance) -> float:
    """Return how long an utterance is; 0 for one whose audio cannot be read: decoding says so."""
    try:
        return with_duration(utterance).duration or 0.0
    except AudioError:
        return 0.0
