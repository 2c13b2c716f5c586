"""Train a vocoder on one voice: pieces of its recordings, and the units of each piece."""

from __future__ import annotations

import csv
import logging
import math
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechjepa.audio.pitch import track_pitch
from speechjepa.errors import ConfigError, DataError, ModelError
from speechjepa.models.encoder import require_at_least
from speechjepa.models.vocoder import (
    CONTROL_RATE,
    UnitVocoder,
    VocoderConfig,
    save_vocoder,
)
from speechjepa.nn.source_filter import HOP
from speechjepa.objectives.spectral import (
    duration_loss,
    log_mel_loss,
    multi_resolution_stft_loss,
    pitch_loss,
)
from speechjepa.units.sequences import deduplicate

logger = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.pt"
METRICS_FILE = "metrics.csv"
LEAST_SECONDS = 60.0
"""Audio below which no voice is trained (seconds)."""
REPORT_STEPS = 50
"""Steps that a line of metrics.csv is the mean of."""
_SAVE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class VocoderTraining:
    """How a vocoder is trained."""

    minutes: float = 20.0
    """Stop after this time (minutes), whatever `steps` says."""
    steps: int = 6000
    """Stop after this many optimizer steps."""
    batch_size: int = 12
    """Pieces in a step."""
    piece_seconds: float = 1.2
    """Length of a piece (seconds)."""
    learning_rate: float = 1e-3
    """Highest; falls to a hundredth along a cosine."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises."""
    mel_weight: float = 1.0
    """Of the log-mel loss, against the loss of the spectra."""
    pitch_weight: float = 1.0
    """Of the distance in octaves."""
    duration_weight: float = 0.1
    """Of the log-likelihood of durations."""
    seed: int = 0
    """Of the weights, the pieces and the noise."""

    def __post_init__(self) -> None:
        require_at_least(self, {"steps": 1, "batch_size": 1, "warmup_steps": 1})
        for name in ("minutes", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"`{name}` must be more than 0, but is {getattr(self, name)} instead"
                )
        if self.piece_seconds < 0.5:
            raise ConfigError(
                f"`piece_seconds` must be at least 0.5, but is {self.piece_seconds} instead"
            )


class _Voice(NamedTuple):
    """Recordings of a voice, one after the other."""

    units: Tensor
    """(V, T) frame by frame, in V versions."""
    hertz: Tensor
    """(4 T,) at 100 Hz."""
    voiced: Tensor
    """(4 T,)"""
    waveform: Tensor
    """(S,) 640 T samples."""
    single: Tensor
    """(L,) units without repetition."""
    durations: Tensor
    """(L,) frames."""


def train_vocoder(
    recordings: Sequence[tuple[Tensor, NDArray[np.float32]]],
    sizes: VocoderConfig,
    training: VocoderTraining,
    folder: Path,
) -> UnitVocoder:
    """Train a vocoder, or go on where an interrupted training with the same settings stopped.

    Pulses follow the true pitch while envelopes are learned, and the pitch is learned by itself:
    so harmonics coincide, and spectra can be compared without aligning anything.

    Args:
        recordings: Units (V, T), frame by frame, and waveform (S,) at 16 kHz of each recording.
            The V versions are units that the same speech might be heard as; durations are learned
            from the first, the rest from any.
        sizes: Of the vocoder; the mean pitch and level are taken from the recordings.
        training: Steps, rates and weights.
        folder: Where the vocoder, metrics.csv and, until it is done, the checkpoint lie.

    Raises:
        DataError: There is less than a minute of audio, or nowhere a pitch.
        ModelError: A checkpoint in the folder was made with other settings.
    """
    voice = _join(recordings, sizes)
    voiced = voice.hertz[voice.voiced]
    level = math.log(max(1e-4, float(voice.waveform.square().mean().sqrt())))
    sizes = replace(
        sizes,
        mean_pitch=round(float(torch.log2(voiced).mean()), 4),
        mean_level=round(level - 1.0, 2),
    )
    torch.manual_seed(training.seed)
    vocoder = UnitVocoder(sizes)
    optimizer = torch.optim.AdamW(
        vocoder.parameters(), lr=training.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    folder.mkdir(parents=True, exist_ok=True)
    asked = {"sizes": asdict(sizes), "training": asdict(training), "units": voice.units.shape[1]}
    step, spent = _resume(folder / CHECKPOINT_FILE, asked, vocoder, optimizer)
    started = saved = time.monotonic()
    sums: dict[str, float] = defaultdict(float)
    while True:
        elapsed = spent + time.monotonic() - started
        progress = max(step / training.steps, elapsed / (60 * training.minutes))
        if progress >= 1:
            break
        rate = training.learning_rate * min(1.0, (step + 1) / training.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        losses = training_losses(vocoder, voice, training, step)
        total = sum(losses.values())
        if not torch.isfinite(total):  # type: ignore[arg-type]
            raise ModelError(f"the loss is not a number at step {step}; lower `learning_rate`")
        optimizer.zero_grad()
        total.backward()  # type: ignore[union-attr]
        torch.nn.utils.clip_grad_norm_(vocoder.parameters(), 5.0)
        optimizer.step()
        step += 1
        for name, loss in losses.items():
            sums[name] += loss.item() / REPORT_STEPS
        if step % REPORT_STEPS == 0:
            _report(folder / METRICS_FILE, step, elapsed, sums)
            sums.clear()
        if time.monotonic() - saved > _SAVE_SECONDS:
            saved = time.monotonic()
            _save(folder / CHECKPOINT_FILE, asked, vocoder, optimizer, step, elapsed)
    save_vocoder(vocoder.eval(), folder)
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    logger.info("vocoder trained for %d steps, %.1f minutes", step, elapsed / 60)
    return vocoder


def training_losses(
    vocoder: UnitVocoder, voice: _Voice, training: VocoderTraining, step: int
) -> dict[str, Tensor]:
    """Return the weighted losses of a step, on pieces drawn for it alone."""
    sizes = vocoder.config
    draw = np.random.default_rng([training.seed, step])
    frames = round(training.piece_seconds * sizes.frame_rate)
    context, up = sizes.context, sizes.upsample
    num_versions, num_frames = voice.units.shape
    starts = draw.integers(0, num_frames - frames - 2 * context + 1, training.batch_size)
    versions = draw.integers(0, num_versions, training.batch_size).tolist()
    inside = starts + context

    def pieces(values: Tensor, first: NDArray[np.int64], length: int) -> Tensor:
        return torch.stack([values[start : start + length] for start in first.tolist()])

    length = frames + 2 * context
    heard = [
        voice.units[version, start : start + length]
        for version, start in zip(versions, starts.tolist(), strict=True)
    ]
    controls = vocoder.controls(torch.stack(heard))
    hertz = pieces(voice.hertz, inside * up, frames * up)
    voiced = pieces(voice.voiced, inside * up, frames * up)
    target = pieces(voice.waveform, inside * up * HOP, frames * up * HOP)
    noise = torch.from_numpy(draw.standard_normal(target.shape, np.float32))
    found = vocoder.render(hertz, controls.envelopes, noise)
    # A piece's first and last 15 ms lack the frames around it.
    edge = 3 * HOP
    found, target = found[:, edge:-edge], target[:, edge:-edge]
    length = min(96, len(voice.single))
    units = draw.integers(0, len(voice.single) - length + 1, 2 * training.batch_size)
    around = vocoder.durations.CONTEXT
    predicted = vocoder.durations(pieces(voice.single, units, length))
    durations = pieces(voice.durations, units, length)[:, around : length - around]
    return {
        "stft": multi_resolution_stft_loss(found, target),
        "mel": training.mel_weight * log_mel_loss(found, target),
        "pitch": training.pitch_weight * pitch_loss(controls.pitch, torch.log2(hertz), voiced),
        "duration": training.duration_weight * duration_loss(predicted, durations.float()),
    }


def _join(recordings: Sequence[tuple[Tensor, NDArray[np.float32]]], sizes: VocoderConfig) -> _Voice:
    up = sizes.upsample
    parts = []
    for units, waveform in recordings:
        num_frames = min(units.shape[1], len(waveform) // (up * HOP))
        if num_frames == 0:
            continue
        waveform = waveform[: num_frames * up * HOP]
        pitch = track_pitch(waveform)
        single, durations = deduplicate(units[0, :num_frames])
        hertz = torch.from_numpy(pitch.hertz)
        parts.append(
            _Voice(
                units[:, :num_frames],
                hertz,
                torch.from_numpy(pitch.voiced),
                torch.from_numpy(waveform),
                single,
                durations,
            )
        )
    seconds = sum(len(part.waveform) for part in parts) / (HOP * CONTROL_RATE)
    if seconds < LEAST_SECONDS:
        raise DataError(
            f"a voice needs {LEAST_SECONDS:g} s of speech or more to be trained, tens of minutes "
            f"to sound well, but there are {seconds:.1f} s"
        )
    voice = _Voice(*(torch.cat(values, dim=-1) for values in zip(*parts, strict=True)))
    if not voice.voiced.any():
        raise DataError("no recording holds a voice with a pitch: is this speech?")
    middle = voice.hertz[voice.voiced].median()
    return voice._replace(hertz=torch.where(voice.hertz > 0, voice.hertz, middle))


def _resume(
    path: Path, asked: dict[str, Any], vocoder: UnitVocoder, optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    """Load a checkpoint if there is one; return its step and the time spent (seconds)."""
    if not path.exists():
        path.with_name(METRICS_FILE).unlink(missing_ok=True)  # of a voice that this one replaces
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    if state["asked"] != asked:
        raise ModelError(
            f"{path}: was made with other settings or recordings; remove it, or give another folder"
        )
    vocoder.load_state_dict(state["vocoder"])
    optimizer.load_state_dict(state["optimizer"])
    logger.info("going on from step %d", state["step"])
    return int(state["step"]), float(state["seconds"])


def _save(
    path: Path,
    asked: dict[str, Any],
    vocoder: UnitVocoder,
    optimizer: torch.optim.Optimizer,
    step: int,
    seconds: float,
) -> None:
    partial = path.with_name(path.name + ".partial")
    state = {
        "asked": asked,
        "vocoder": vocoder.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "seconds": seconds,
    }
    torch.save(state, partial)
    os.replace(partial, path)


def _report(path: Path, step: int, seconds: float, losses: Mapping[str, float]) -> None:
    """Add a line of means over the steps since the line before."""
    values = {name: round(loss, 4) for name, loss in losses.items()}
    is_new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(["step", "seconds", *values])
        writer.writerow([step, round(seconds, 1), *values.values()])
    if step % 200 == 0:
        shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        logger.info("step %d, %.0f s: %s", step, seconds, shown)
