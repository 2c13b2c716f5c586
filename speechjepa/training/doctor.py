"""Watches CTC fine-tuning and says in plain words what goes wrong."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechjepa.data.utterance import Utterance
from speechjepa.shapes import padding_mask

logger = logging.getLogger(__name__)

# A CTC model that has learned nothing writes blanks only, at about the entropy of its characters.
BLANK_LIMIT = 0.99
BLANK_READINGS = 20
MAX_NAMED = 20


def in_words(name: str) -> str:
    """Return what an error rate is called in messages."""
    return name.upper() if len(name) == 3 else name.replace("_", " ")


class CtcDoctor:
    """Collects readings; each finding is logged once and appended to a file.

    Args:
        path: JSON-lines file of findings: step, code, message, and figures.
        resume_step: Keep what was found up to this step of an earlier sitting; 0 = start anew.
    """

    def __init__(self, path: Path, resume_step: int = 0) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        found = [(json.loads(line), line) for line in lines if line]
        # What does not fit its frames (step 0) is found again at every start.
        kept = [(entry, line) for entry, line in found if 0 < entry["step"] <= resume_step]
        path.write_text("".join(line + "\n" for _, line in kept), encoding="utf-8")
        self._said = {entry["code"] for entry, _ in kept}
        self._blanks: list[float] = []
        self._losses: list[float] = []
        self._misfits = 0

    def misfit(self, utterance: Utterance, needed: int, frames: int) -> None:
        """Name an utterance whose transcript cannot be written in its frames."""
        self._misfits += 1
        message = (
            f"{utterance.source or utterance.audio_path}: {utterance.id} is left out: its "
            f"transcript needs {needed} frames, but the encoder gives {frames}. "
            "Is the transcript that of this recording?"
        )
        if needed == 0:
            message = f"{utterance.source}: {utterance.id} is left out: its transcript is empty."
        quiet = self._misfits > MAX_NAMED
        self._find(0, "label_longer_than_frames", message, quiet=quiet, needed=needed, has=frames)

    def watch(self, step: int, loss: float, logits: Tensor, lengths: Tensor) -> float:
        """Take a reading of a training batch; return its share of blank frames."""
        valid = ~padding_mask(lengths, logits.shape[1])
        with torch.no_grad():
            blanks = float((logits.argmax(dim=-1)[valid] == 0).float().mean())
        self._blanks.append(blanks)
        self._losses.append(loss)
        if not math.isfinite(loss):
            self.lost(step, loss)
        recent = self._blanks[-BLANK_READINGS:]
        if len(recent) == BLANK_READINGS and min(recent) > BLANK_LIMIT:
            self._once(
                step,
                "all_blank",
                f"step {step}: the model writes nothing but blanks ({recent[-1]:.1%} of frames, "
                f"loss {loss:.2f} nats per character). That is normal in the first few hundred "
                "steps; if it stays so, raise finetune.learning_rate or "
                "finetune.head_learning_rate_factor, or check that transcripts match their audio.",
                blank_ratio=recent[-1],
            )
        half = 2 * BLANK_READINGS
        if len(self._losses) >= 2 * half and "all_blank" in self._said:
            before = sum(self._losses[-2 * half : -half]) / half
            now = sum(self._losses[-half:]) / half
            if now > 0.98 * before and recent[-1] > BLANK_LIMIT:
                self._once(
                    step,
                    "loss_plateau",
                    f"step {step}: the loss stands still at {now:.2f} nats per character while "
                    "only blanks are written: the model is not learning to spell.",
                )
        return blanks

    def lost(self, step: int, loss: float) -> None:
        """Say that the loss is not finite."""
        self._once(
            step,
            "loss_not_finite",
            f"step {step}: the loss is {loss}. Lower finetune.learning_rate, or set "
            "finetune.precision=float32.",
        )

    def heard(self, step: int, name: str, rate: float) -> None:
        """Take a reading of a dev error rate."""
        if rate > 1.0:
            self._once(
                step,
                f"{name}_above_one",
                f"step {step}: dev {in_words(name)} is {rate:.0%}: the model writes far more than "
                "is said.",
            )

    def conclude(self, best: dict[str, Any]) -> None:
        """Say which state was kept."""
        rates = {name: rate for name, rate in best.items() if name != "step"}
        if None in rates.values():
            message = f"kept the last step ({best['step']}): there is no dev data to choose by"
        else:
            told = ", ".join(f"{in_words(name)} {rate:.1%}" for name, rate in rates.items())
            message = f"kept step {best['step']}: dev {told}"
        if self._misfits:
            message += f"; {self._misfits} training utterances did not fit their frames"
        self._find(best["step"], "kept", message, quiet=False)

    def _once(self, step: int, code: str, message: str, **figures: float) -> None:
        if code not in self._said:
            self._said.add(code)
            self._find(step, code, message, quiet=False, **figures)

    def _find(self, step: int, code: str, message: str, *, quiet: bool, **figures: float) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            entry = {"step": step, "code": code, "message": message, **figures}
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        if not quiet:
            logger.log(logging.INFO if code == "kept" else logging.WARNING, message)
