"""What a run writes while it trains: one CSV that survives a resume, and TensorBoard events."""

from __future__ import annotations

import csv
import time
from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from speechjepa.data.batches import Batch

SECONDS_BETWEEN_WRITES = 10.0


class RecordingModule(pl.LightningModule, ABC):
    """A module whose readings go straight to the loggers, at the step they were taken.

    Lightning's own `log` repeats a reading at every later step, and first writes at the tenth.
    """

    readings: dict[str, float]
    """The last value of everything recorded."""
    batches: int
    """Batches that the weights have learned from: those of finished optimizer steps."""

    def __init__(self) -> None:
        super().__init__()
        self.readings = {}
        self.go_on_after(0)
        self._last_batch: Batch | None = None
        self._lost: Tensor | int = 0  # losses in a row that are not finite

    def go_on_after(self, batches: int) -> None:
        """Count on from this many batches."""
        self.batches = self._batches_begun = batches

    @property
    def between_steps(self) -> bool:
        """Whether no gradient is half accumulated."""
        return self._batches_begun == self.batches

    @property
    def healthy(self) -> bool:
        """Whether the weights are worth keeping."""
        return True

    def begin_batch(self, batch: Batch) -> None:
        """Count a batch that is begun; dropout depends on it alone, as a resumed run repeats it."""
        torch.manual_seed(int(batch.keys[0]) % 2**31)
        self._batches_begun += 1
        self._last_batch = batch

    @abstractmethod
    def loss_of(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar, with the weights as they are."""

    def sound(self) -> bool:
        """Whether the last batch has a finite loss with the weights as they are now.

        The loss of a step is that of the weights before it: without asking again, weights that the
        last step has ruined would be kept. Processes that train together must ask together.
        """
        if self._last_batch is None:
            return True
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            return bool(self.loss_of(self._last_batch.to(self.device)).isfinite())

    def losses_lost(self, loss: Tensor) -> int:
        """Return how many losses in a row were not finite, this one included.

        Counted on the device and read there every tenth step only, since reading waits for it; 0
        in between.
        """
        self._lost = (self._lost + 1) * (~loss.detach().isfinite()).long()
        return int(self._lost) if loss.device.type == "cpu" or self.global_step % 10 == 0 else 0

    def end_step(self) -> None:
        """Count the batches of a finished optimizer step."""
        self.batches = self._batches_begun

    def record(self, values: Mapping[str, Any]) -> None:
        """Log scalars (numbers or tensors) at the current step."""
        numbers = {name: float(value) for name, value in values.items()}
        self.readings.update(numbers)
        for logger in self.loggers:
            logger.log_metrics(numbers, self.global_step)


class CsvLog(Logger):
    """Wide CSV, one row per step; appended to on resume, rows after the resumed step dropped.

    Lightning's own CSV logger deletes the file of an interrupted run.

    Args:
        folder: Where metrics.csv is written.
        resume_step: Keep rows up to this step of an earlier sitting; 0 = start anew.
    """

    def __init__(self, folder: Path, resume_step: int = 0) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.rows: dict[int, dict[str, float]] = {}
        self._written = time.monotonic()
        if resume_step and self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    step = int(row.pop("step"))
                    if step <= resume_step:
                        self.rows[step] = {k: float(v) for k, v in row.items() if v}

    @property
    def name(self) -> str:
        """Lightning asks for a name; the folder has it already."""
        return ""

    @property
    def version(self) -> str:
        """Lightning asks for a version; a run's folder is its version."""
        return ""

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Settings are in config.json beside the log."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Remember readings, and write the file now and then."""
        self.rows.setdefault(int(step or 0), {}).update(metrics)
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write the file."""
        if not self.rows:
            return
        columns = ["step", *sorted({name for row in self.rows.values() for name in row})]
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            for step in sorted(self.rows):
                row = {name: f"{value:.6g}" for name, value in self.rows[step].items()}
                writer.writerow({"step": step, **row})
        partial.replace(self.path)
        self._written = time.monotonic()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file at the end."""
        self.save()


def loggers(folder: Path, resume_step: int) -> list[Logger]:
    """Return the loggers of a run: metrics.csv and tensorboard/ in its folder."""
    tensorboard = TensorBoardLogger(save_dir=folder, name="tensorboard", version="")
    return [CsvLog(folder, resume_step), tensorboard]
