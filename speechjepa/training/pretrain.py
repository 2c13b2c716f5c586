"""Pretraining: one trainer for every objective and either encoder."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.multiprocessing.spawn import ProcessRaisedException

from speechjepa.config import to_dict
from speechjepa.data.batches import Batch, BatchPlan, CachedItems, batch_loader, collate
from speechjepa.data.cache import AudioCache, build_cache, write_skipped
from speechjepa.data.utterance import Utterance
from speechjepa.errors import CollapseError
from speechjepa.models.bundle import (
    Bundle,
    EncoderConfig,
    num_parameters,
    save_bundle,
)
from speechjepa.models.shipped import start_name
from speechjepa.training.callbacks import (
    LAST_CHECKPOINT,
    checkpoint_summary,
    fit,
    make_trainer,
    quiet_lightning,
    save_json,
    start_encoder,
)
from speechjepa.training.config import PretrainConfig
from speechjepa.training.front_end import fit_front_end
from speechjepa.training.future import FutureObjective
from speechjepa.training.logs import RecordingModule
from speechjepa.training.monitors import CollapseMonitor, diverged, read_monitors
from speechjepa.training.objective import Objective, ObjectiveOutput
from speechjepa.training.objectives import JepaObjective, build_objective
from speechjepa.training.precision import autocast, pick_precision
from speechjepa.training.probe import Probe, ProbeData, start_probe
from speechjepa.training.processes import pick_strategy, world_size
from speechjepa.training.schedule import Budget, cosine, parameter_groups, set_learning_rate
from speechjepa.training.snapshot import write_snapshot

logger = logging.getLogger(__name__)


class PretrainModule(RecordingModule):
    """Lightning's view of an objective: steps, schedules, monitors.

    Args:
        objective: From `build_objective`.
        items: What it is trained on.
        config: Settings.
        budget: The run's clock.
        probe: Measures the frozen encoder now and then; None = never.
    """

    def __init__(
        self,
        objective: Objective,
        items: CachedItems,
        config: PretrainConfig,
        budget: Budget,
        probe: Probe | None,
    ) -> None:
        super().__init__()
        self.objective = objective
        self.items = items
        self.config = config
        self.budget = budget
        self.probe = probe
        self.precision_name = "float32"
        self.audio_seconds = 0.0
        self.progress = 0.0  # share of the run that is done, by the clock of the first process
        self.monitor = CollapseMonitor(config.collapse)
        self._rate_from: tuple[float, float] | None = None
        self._batch_ended: float | None = None
        self._waited = 0.0

    @property
    def healthy(self) -> bool:
        """False while the monitors' readings are bad: such a state is not worth keeping."""
        return self.monitor.bad_readings == 0

    def train_dataloader(self) -> Any:
        """Return this process's share of the batches from where the run stands."""
        plan = BatchPlan(
            self.items.lengths,
            self.config.batch_seconds * self.trainer.world_size,
            seed=self.config.seed,
            start=self.batches,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        return batch_loader(self.items, plan, self.config.num_workers)

    def on_train_start(self) -> None:
        """Read the clock."""
        self._read_clock()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW with the settings of data2vec 2.0."""
        groups = parameter_groups(
            self.objective.named_parameters(), self.config.learning_rate, self.config.weight_decay
        )
        return torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6, fused=True)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the loss of a batch."""
        begins_step = self.between_steps
        self.begin_batch(batch)
        output = self._predict(batch)
        step = self.global_step
        if self.losses_lost(output.total):
            raise diverged(step, float(output.total.detach()), "pretrain")
        self.audio_seconds += float(batch.lengths.sum()) / 16000 * world_size()
        if begins_step and step % 10 == 0:
            losses = {f"loss/{name}": value for name, value in output.parts.items()}
            self.record({"loss/total": output.total.detach(), **losses})
            self._log_rate()
        if begins_step and step % self.config.monitor_every == 0:
            # One process's readings judge for all: they stop, or keep a checkpoint, together.
            readings = self.trainer.strategy.broadcast(read_monitors(output))
            self.record({f"monitor/{name}": value for name, value in readings.items()})
            if self.config.objective != "future":  # whose targets are fixed: nothing can collapse
                self.monitor.check(step, readings)
        return output.total

    def loss_of(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar, with the weights as they are."""
        return self._predict(batch).total

    def _predict(self, batch: Batch) -> ObjectiveOutput:
        with autocast(self.device, self.precision_name):
            return cast(ObjectiveOutput, self.objective(batch, self.progress, self.global_step))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Set the learning rate, step, then let the objective follow (the EMA)."""
        factor = cosine(self.progress, self.config.warmup, self.config.final_learning_rate)
        rate = set_learning_rate(cast(torch.optim.Optimizer, self.optimizers()), factor)
        super().optimizer_step(*args, **kwargs)
        self.objective.after_step(self.progress)
        self.end_step()
        if self.global_step % 10 == 0:
            self.record({"learning_rate": rate})

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        """Note how long the batch was waited for."""
        if self._batch_ended is not None:
            self._waited += time.monotonic() - self._batch_ended

    def on_train_batch_end(self, *args: Any) -> None:
        """Probe when it is due; stop when the budget is spent."""
        self._batch_ended = time.monotonic()
        every = self.config.probe_every
        due = every and self.between_steps and self.global_step % every == 0
        if self.probe is not None and due:
            self.record({"monitor/probe_cer": self.probe.measure(self.objective.model.encoder)})
        self._read_clock()
        if self.progress >= 1.0:
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        """Leave the account where the process that spawned this one finds it."""
        if not self.sound():
            raise diverged(self.global_step, float("nan"), "pretrain")
        account = {name: float(value) for name, value in self.account().items()}
        self.trainer.callback_metrics.update(
            {name: torch.tensor(value, dtype=torch.float64) for name, value in account.items()}
        )

    def account(self) -> dict[str, float]:
        """Return what the run took so far."""
        return {
            "seconds": self.budget.seconds,
            "batches": self.batches,
            "audio_seconds": self.audio_seconds,
            "step": self.global_step,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the clock and the place in the data."""
        account = self.account()
        del account["step"]  # the checkpoint's own `global_step`
        checkpoint["speechjepa"] = {**account, "precision": self.precision_name}

    def _read_clock(self) -> None:
        progress = self.budget.progress(self.global_step)
        self.progress = self.trainer.strategy.broadcast(progress)

    def _log_rate(self) -> None:
        now = time.monotonic()
        if self._rate_from is not None:
            then, seconds = self._rate_from
            if now > then:
                rate = (self.audio_seconds - seconds) / (now - then)
                self.record({"rate/audio_hours_per_hour": rate})
                self.record({"rate/waiting_for_data": self._waited / (now - then)})
        self._rate_from, self._waited = (now, self.audio_seconds), 0.0


@dataclass(frozen=True)
class _Start:
    """Where a run starts: from nothing, or after an earlier sitting."""

    checkpoint: Path | None
    step: int = 0
    seconds: float = 0.0
    batches: int = 0
    audio_seconds: float = 0.0
    precision: str = ""


def pretrain(
    config: PretrainConfig,
    pool: Sequence[Utterance],
    run_dir: Path,
    *,
    encoder: EncoderConfig | None = None,
    init: str | Path | None = None,
    probe: ProbeData | None = None,
    cache_dir: Path,
) -> Path:
    """Pretrain an encoder on unlabelled audio; continues where an interrupted run stopped.

    Args:
        config: Settings.
        pool: The audio; transcripts are not looked at.
        run_dir: Gets config.json, metrics.csv, tensorboard/, checkpoints/, bundle/, and, but for
            the objective `future`, snapshot.npz.
        encoder: Sizes of a fresh encoder; with `init`, the prior and the pitch count.
        init: Bundle to continue from.
        probe: Labelled utterances for the probe; None = no probe.
        cache_dir: Where decoded audio is kept.

    Returns:
        The folder of the bundle.

    Raises:
        CollapseError: The representation collapsed, or the loss is no longer finite; the last
            healthy checkpoint is kept.
        DataError: No utterance can be decoded, or nothing is in them to be learnt from.
    """
    quiet_lightning()
    run_dir.mkdir(parents=True, exist_ok=True)
    start = _find_start(run_dir)
    pl.seed_everything(config.seed + start.step, verbose=False)
    cache = build_cache(pool, cache_dir)
    write_skipped(cache.skipped, run_dir / "skipped.jsonl")
    items = CachedItems(cache, config.max_seconds, config.min_seconds)
    network = start_encoder(encoder, init)
    network.set_dropout(config.dropout, config.drop_path)
    fit_front_end(network, items)
    objective = build_objective(network, config)
    if start.checkpoint is None:
        objective.fit(_some_audio(items, config.seed), config.seed)
    save_json(
        {
            "pretrain": to_dict(config),
            "encoder": to_dict(network.config),
            "init": start_name(init),
            "utterances": len(items),
            "hours": cache.seconds / 3600,
            "parameters": num_parameters(network),
        },
        run_dir / "config.json",
    )
    budget = Budget(config.max_steps, config.minutes)
    measured = start_probe(probe, cache_dir, config.probe_steps, config.seed)
    module = PretrainModule(objective, items, config, budget, measured)
    module.go_on_after(start.batches)
    module.audio_seconds = start.audio_seconds
    account = _fit(module, config, run_dir, start)
    bundle = _finish(module, account, cache, run_dir, init)
    logger.info(
        "pretrained on %.3g h of audio (%.3g h seen) in %.1f min: %s",
        cache.seconds / 3600,
        account["audio_seconds"] / 3600,
        account["seconds"] / 60,
        bundle,
    )
    return bundle


def _fit(
    module: PretrainModule, config: PretrainConfig, run_dir: Path, start: _Start
) -> dict[str, float]:
    """Train, and return the run's account (see `PretrainModule.account`)."""
    trainer = make_trainer(
        "pretrain",
        config,
        run_dir,
        module.budget,
        start_step=start.step,
        checkpoint_minutes=config.checkpoint_minutes,
        devices=config.devices,
        strategy=pick_strategy(config, module.objective.model.encoder),
    )
    device = trainer.strategy.root_device
    module.precision_name = start.precision or _measure_precision(module, config, device)
    module.train()  # a loaded encoder comes in evaluation mode, and Lightning keeps the mode
    module.budget.start(start.seconds)
    try:
        fit(trainer, module, checkpoint=start.checkpoint)
    except (CollapseError, ProcessRaisedException) as error:
        reason = str(error)
        if isinstance(error, ProcessRaisedException):  # a traceback, as text
            _, collapsed, reason = reason.rpartition(f"{CollapseError.__name__}: ")
            if not collapsed:
                raise
        kept = run_dir / "checkpoints" / LAST_CHECKPOINT
        said = f" The last healthy checkpoint is {kept}." if kept.exists() else ""
        raise CollapseError(reason.strip() + said) from None
    # Nothing is reported by a run that was stopped after its last step.
    told = trainer.callback_metrics
    return {name: float(told.get(name, value)) for name, value in module.account().items()}


def _measure_precision(module: PretrainModule, config: PretrainConfig, device: torch.device) -> str:
    if config.precision != "auto":
        return config.precision
    items = module.items
    requests = BatchPlan(items.lengths, min(40.0, config.batch_seconds)).fullest()
    batch = collate([items[request] for request in requests]).to(device)
    module.objective.to(device).train()
    precision = pick_precision(config.precision, device, lambda: module.objective(batch, 0.0).total)
    module.objective.zero_grad()
    module.objective.cpu()  # processes are spawned from here
    return precision


def _finish(
    module: PretrainModule,
    account: dict[str, float],
    cache: AudioCache,
    run_dir: Path,
    init: str | Path | None,
) -> Path:
    module.cpu().eval()
    encoder, config = module.objective.model.encoder, module.config
    encoder.set_dropout(0.0, 0.0)
    languages = sorted({u.language for u in cache.utterances if u.language})
    training = {
        "stage": "pretrain",
        "objective": config.objective,
        "settings": asdict(config),
        "init": start_name(init),
        "unlabelled_hours": cache.seconds / 3600,
        "audio_hours_seen": account["audio_seconds"] / 3600,
        "minutes": account["seconds"] / 60,
        "steps": int(account["step"]),
        "languages": languages,
    }
    bundle = Bundle(encoder=encoder, training={"pretrain": training})
    if isinstance(module.objective, FutureObjective):
        bundle.future = module.objective.model
        bundle.future.predictor.fit_scale(_some_audio(module.items, config.seed))
    else:
        write_snapshot(module.objective, module.items, run_dir / "snapshot.npz")
    if isinstance(module.objective, JepaObjective):
        bundle.predictor = module.objective.model
        bundle.predictor_config = module.objective.predictor_config
    return save_bundle(bundle, run_dir / "bundle")


def _some_audio(items: CachedItems, seed: int, minutes: float = 30.0) -> list[Tensor]:
    """Return utterances (S,) drawn from the pool, at most this many minutes of them."""
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed)).tolist()
    within = int((items.lengths[order].cumsum() <= minutes * 60 * 16000).sum())
    return [torch.from_numpy(items[(item, 0)][0]) for item in order[: max(1, within)]]


def _find_start(run_dir: Path) -> _Start:
    path = run_dir / "checkpoints" / LAST_CHECKPOINT
    summary = checkpoint_summary(path)
    if not summary:
        return _Start(None)
    logger.info("continuing %s after step %d", path, summary["step"])
    return _Start(checkpoint=path, **summary)
