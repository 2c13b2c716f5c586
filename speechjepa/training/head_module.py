"""Lightning's view of training an encoder together with a head on labels."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from speechjepa.data.batches import Batch, BatchPlan, CachedItems, batch_loader, collate
from speechjepa.models.encoder import Encoder, EncoderOutput
from speechjepa.nn.ema import target_copy, update_ema
from speechjepa.nn.transformer import Chunks
from speechjepa.training.augmented import encode_augmented
from speechjepa.training.callbacks import LAST_CHECKPOINT, fit, make_trainer
from speechjepa.training.config import FinetuneConfig
from speechjepa.training.doctor import CtcDoctor, in_words
from speechjepa.training.logs import RecordingModule
from speechjepa.training.monitors import diverged
from speechjepa.training.precision import autocast, pick_precision
from speechjepa.training.schedule import (
    Budget,
    layer_groups,
    parameter_groups,
    set_learning_rate,
    tri_stage,
)

logger = logging.getLogger(__name__)

CHECKPOINT_MINUTES = 3.0
LOST_LOSSES = 5  # in a row that are not finite: nothing is learned any more


class HeadModule(RecordingModule):
    """Trains an encoder and a head; keeps the state with the lowest error on dev.

    Args:
        model: Encoder and head; has `encoder`.
        config: Settings, all resolved.
        budget: The run's clock.
        doctor: Watches and says what it sees.
    """

    name: str
    """Of the stage, in progress lines and messages."""
    criteria: tuple[str, ...]
    """Dev readings, error rates; the state is chosen by the first, unless `error` says more."""

    def __init__(
        self,
        model: nn.Module,
        config: FinetuneConfig,
        budget: Budget,
        doctor: CtcDoctor,
    ) -> None:
        super().__init__()
        self.model = model
        self.average = target_copy(model) if config.average_decay else None
        self.config = config
        self.budget = budget
        self.doctor = doctor
        self.precision_name = "float32"
        self.best: dict[str, Any] = {**dict.fromkeys(self.criteria, float("inf")), "step": 0}
        self.best_weights: dict[str, Tensor] = {}
        self._evaluated = -1

    @property
    @abstractmethod
    def items(self) -> CachedItems:
        """Training audio."""

    @property
    @abstractmethod
    def head(self) -> nn.Module:
        """The part of the model that is not the encoder."""

    def start_head(self) -> None:
        """Bring the head to where the encoder can learn from it, before the first step."""

    @abstractmethod
    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss of an augmented batch (nats per token), the logits (B, T, V) of its
        frames or tokens, and their lengths (B,)."""

    @abstractmethod
    def whole_loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch with nothing masked and nothing frozen."""

    @abstractmethod
    def measure_dev(self) -> dict[str, float] | None:
        """Return readings on dev, by the names of `criteria`; None without dev data."""

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        return self.budget.progress(self.global_step)

    @property
    def encoder(self) -> Encoder:
        """The encoder being fine-tuned."""
        return cast(Encoder, self.model.encoder)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; the head learns fastest, each block slower than the one above it."""
        config = self.config
        top = cast(float, config.learning_rate)
        head, factor = self.head.named_parameters(), config.head_learning_rate_factor
        groups = parameter_groups(head, top * factor, config.weight_decay)
        if not config.freeze_encoder:
            decay = cast(float, config.layer_decay)
            below = layer_groups(self.encoder, self.encoder.blocks, top, decay, config.weight_decay)
            groups += [group | {"encoder": True} for group in below]
        return torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-8, fused=True)

    def encode(self, batch: Batch) -> tuple[EncoderOutput, Chunks | None]:
        """Return the encoder's output of an augmented batch, and the chunks it was heard in."""
        with autocast(self.device, self.precision_name):
            return encode_augmented(
                self.encoder, batch, self.config, frozen=self._encoder_is_frozen
            )

    def loss_of(self, batch: Batch) -> Tensor:
        """Return the loss of an augmented batch, a scalar, with the weights as they are."""
        return self.losses(batch)[0]

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the loss of a batch."""
        begins_step = self.between_steps
        self.begin_batch(batch)
        loss, logits, lengths = self.losses(batch)
        if self.losses_lost(loss) >= LOST_LOSSES:
            self.doctor.lost(self.global_step, float(loss.detach()))
            raise diverged(self.global_step, float(loss.detach()), self.name)
        if begins_step and self.global_step % 10 == 0:
            self.watch(loss.detach(), logits, lengths)
        return loss

    def watch(self, loss: Tensor, logits: Tensor, lengths: Tensor) -> None:
        """Record a loss and let the doctor look at what is written."""
        blanks = self.doctor.watch(self.global_step, float(loss), logits, lengths)
        self.record({"loss/ctc": loss, "monitor/blank_ratio": blanks})

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Set the learning rates, then step."""
        config = self.config
        factor = tri_stage(self.progress, config.schedule, config.final_learning_rate)
        optimizer = cast(torch.optim.Optimizer, self.optimizers())
        rate = set_learning_rate(optimizer, factor)
        if self._encoder_is_frozen:
            for group in optimizer.param_groups:
                group["lr"] *= not group.get("encoder", False)
        super().optimizer_step(*args, **kwargs)
        self.end_step()
        if self.average is not None:
            # What the average begins with is forgotten while there are few steps to average.
            begun = (1.0 + self.global_step) / (10.0 + self.global_step)
            update_ema(self.average, self.model, min(config.average_decay, begun))
        if self.global_step % 10 == 0:
            self.record({"learning_rate": rate})

    def on_train_batch_end(self, *args: Any) -> None:
        """Evaluate when it is due; stop when the budget is spent or dev stops improving."""
        over = self.progress >= 1.0
        if self.between_steps:
            self.evaluate_if_due(over)
        if over:
            self.trainer.should_stop = True

    def on_train_start(self) -> None:
        """Make up for an evaluation that an interruption prevented."""
        if self.global_step:
            self.evaluate_if_due(self.progress >= 1.0)

    def evaluate_if_due(self, over: bool) -> None:
        """Read the dev error, once a step, every so many steps and when training is over."""
        step = self.global_step
        due = step % cast(int, self.config.evaluate_every) == 0 or over
        if due and (self._best_is_unread or step != self._evaluated):
            self._evaluate(step)
            self._evaluated = step

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the clock, the place in the data and the best state so far."""
        checkpoint["speechjepa"] = {"seconds": self.budget.seconds, "batches": self.batches}
        checkpoint["speechjepa"]["precision"] = self.precision_name
        checkpoint["best"] = {"result": self.best, "weights": self.best_weights}
        checkpoint["best"]["evaluated"] = self._evaluated

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the best state so far."""
        best = checkpoint["best"]
        self.best, self.best_weights = best["result"], best["weights"]
        self._evaluated = best["evaluated"]
        weights = checkpoint["state_dict"]
        if self.average is None:
            checkpoint["state_dict"] = {k: v for k, v in weights.items() if k[:8] != "average."}
        else:
            # Checkpoints of before there was an average: it begins here.
            for name in self.average.state_dict():
                weights.setdefault(f"average.{name}", weights[f"model.{name}"].clone())

    def error(self, readings: Mapping[str, Any]) -> float:
        """Return what the best state of a run has least of."""
        return float(readings[self.criteria[0]])

    def _evaluate(self, step: int) -> None:
        with self._averaged(), autocast(self.device, self.precision_name):
            readings = self.measure_dev()
        if readings is None:
            self._keep({**dict.fromkeys(self.criteria), "step": step})
            return
        self.record({f"dev/{name}": value for name, value in readings.items()})
        chosen_by = self.criteria[0]
        self.doctor.heard(step, chosen_by, readings[chosen_by])
        if self._best_is_unread or self.error(readings) < self.error(self.best):
            self._keep({**readings, "step": step})
        since = (step - self.best["step"]) // cast(int, self.config.evaluate_every)
        if self.config.patience is not None and since >= self.config.patience:
            what = in_words(chosen_by)
            logger.info("no better dev %s in %d readings: stopping at step %d", what, since, step)
            self.trainer.should_stop = True

    def _keep(self, best: dict[str, Any]) -> None:
        if not self.sound():
            return
        with self._averaged():
            if self.average is not None and not self.sound():
                return
            weights = self.model.state_dict()
        self.best = best
        self.best_weights = {name: tensor.detach().clone() for name, tensor in weights.items()}

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the average, where there is one, in the place of the model, for evaluation."""
        trained = self.model
        self.model = trained if self.average is None else self.average
        self.model.eval()
        try:
            yield
        finally:
            self.model = trained
            self.model.train()

    @property
    def _best_is_unread(self) -> bool:
        """Whether the best state was kept without dev, as by an earlier sitting that had none."""
        return self.best[self.criteria[0]] is None

    @property
    def _encoder_is_frozen(self) -> bool:
        config = self.config
        return config.freeze_encoder or self.progress < cast(float, config.freeze_finetune_updates)


def fit_module(
    module: HeadModule, config: FinetuneConfig, run_dir: Path, earlier: dict[str, Any]
) -> None:
    """Train a module to the end of its budget, from where an earlier sitting stopped."""
    checkpoint = run_dir / "checkpoints" / LAST_CHECKPOINT
    if earlier:
        logger.info("continuing %s after step %d", checkpoint, earlier["step"])
    trainer = make_trainer(
        module.name,
        config,
        run_dir,
        module.budget,
        start_step=earlier.get("step", 0),
        checkpoint_minutes=CHECKPOINT_MINUTES,
    )
    items = module.items
    module.go_on_after(earlier.get("batches", 0))
    plan = BatchPlan(
        items.lengths,
        config.batch_seconds,
        seed=config.seed,
        start=module.batches,
        pool_batches=8,
    )
    device = trainer.strategy.root_device
    module.to(device)
    if not earlier:
        module.start_head()
        if module.average is not None:
            update_ema(module.average, module.model, 0.0)
    batch = collate([items[request] for request in plan.fullest()]).to(device)
    module.precision_name = earlier.get("precision") or pick_precision(
        config.precision, device, lambda: module.whole_loss(batch)
    )
    module.zero_grad()
    module.train()  # a loaded encoder comes in evaluation mode, and Lightning keeps the mode
    module.budget.start(earlier.get("seconds", 0.0))
    fit(trainer, module, batch_loader(items, plan), checkpoint=checkpoint if earlier else None)
    module.evaluate_if_due(over=True)  # a run stopped between its last step and this
    for log in trainer.loggers:
        log.save()
