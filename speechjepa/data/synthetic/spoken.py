"""One synthetic utterance: a voice that speaks in its own manner, in a place of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from speechjepa.data.synthetic.acoustics import USUAL, WIDE, disturb
from speechjepa.data.synthetic.espeak import (
    LOW_PITCH,
    MAX_RANGE_WHEN_LOW,
    SAMPLE_RATE,
    synthesise,
)


class Job(NamedTuple):
    """One utterance to speak, for a worker process."""

    path: str
    spoken: str
    language: str
    voice: str
    disturbed: bool
    seed: str
    steady: bool = False
    """Whether rate, pitch and vocal tract are the voice's own; otherwise they vary."""
    varied: bool = False
    """Whether they, and what disturbs, vary widely."""


@dataclass(frozen=True, kw_only=True)
class _Manners:
    """How a voice may speak: ranges of the arguments of `synthesise`."""

    rate: tuple[int, int]
    pitch: tuple[int, int]
    pitch_range: tuple[int, int]
    formant_ratio: tuple[float, float]

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        rate = int(rng.integers(*self.rate))
        pitch = int(rng.integers(*self.pitch))
        pitch_range = int(rng.integers(*self.pitch_range))
        if pitch < LOW_PITCH:
            pitch_range = min(pitch_range, MAX_RANGE_WHEN_LOW)
        formant_ratio = float(rng.uniform(*self.formant_ratio))
        return {
            "rate": rate,
            "pitch": pitch,
            "pitch_range": pitch_range,
            "formant_ratio": formant_ratio,
            "seed": int(rng.integers(1 << 31)),
        }


_MANNERS = {
    False: _Manners(
        rate=(130, 200), pitch=(35, 66), pitch_range=(30, 71), formant_ratio=(0.92, 1.08)
    ),
    True: _Manners(
        rate=(110, 300), pitch=(12, 89), pitch_range=(20, 71), formant_ratio=(0.85, 1.18)
    ),
}
"""By `Job.varied`."""


def make_utterance(job: Job) -> float:
    """Speak, disturb and write one utterance; return its duration in seconds."""
    import soundfile

    rng = np.random.default_rng(list(job.seed.encode()))
    if job.steady:
        speech = synthesise(job.spoken, job.language, voice=job.voice)
    else:
        speech = synthesise(
            job.spoken, job.language, voice=job.voice, **_MANNERS[job.varied].draw(rng)
        )
    waveform = speech.waveform
    if job.disturbed:
        conditions = WIDE if job.varied else USUAL
        waveform = disturb(waveform, rng, speech.sample_rate, conditions)
    if job.path.endswith(".opus"):
        soundfile.write(
            job.path, waveform, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=0.93
        )
    else:
        soundfile.write(job.path, waveform, SAMPLE_RATE, subtype="PCM_16")
    return round(len(waveform) / SAMPLE_RATE, 4)
