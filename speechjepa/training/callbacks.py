"""What pretraining and fine-tuning share: the trainer, checkpoints, progress, the start."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from speechjepa.errors import ConfigError
from speechjepa.models.bundle import EncoderConfig, build_encoder, load_init
from speechjepa.models.encoder import Encoder
from speechjepa.models.speech_encoder import SpeechEncoder
from speechjepa.training.config import FinetuneConfig, PretrainConfig
from speechjepa.training.logs import RecordingModule, loggers
from speechjepa.training.schedule import Budget

logger = logging.getLogger(__name__)

LAST_CHECKPOINT = "last.ckpt"


class Checkpoints(pl.Callback):
    """Keep the last good checkpoint, written whole or not at all.

    Args:
        folder: Where `last.ckpt` is kept.
        minutes: Minutes between writes.
    """

    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder = folder
        self.minutes = minutes
        self.written = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any
    ) -> None:
        assert isinstance(module, RecordingModule)
        due = time.monotonic() - self.written >= 60.0 * self.minutes
        due = trainer.strategy.broadcast(due)
        if due and module.between_steps and module.healthy and module.sound():
            self.write(trainer)

    def write(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / (LAST_CHECKPOINT + ".partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            os.replace(partial, self.folder / LAST_CHECKPOINT)
        for log in trainer.loggers:
            log.save()  # a run that goes on from here needs its readings up to here
        self.written = time.monotonic()

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Keep what a run stopped by Ctrl-C or SIGTERM has learned, unless it is going bad."""
        assert isinstance(module, RecordingModule)
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit)
        if not stopped or trainer.global_step == 0 or not module.healthy:
            return
        # Several processes may stand at different places now, and cannot ask for a loss together.
        alone = trainer.world_size == 1
        if module.sound() if alone else all(bool(p.isfinite().all()) for p in module.parameters()):
            # A window of accumulated gradients that is not over is begun again with its data.
            window = trainer.accumulate_grad_batches
            batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
            whole = batches.completed // window * window
            batches.ready = batches.started = batches.processed = batches.completed = whole
            self.write(trainer)


class ProgressLine(pl.Callback):
    """One line on a terminal that is rewritten, or a log line a minute when nobody watches.

    Args:
        name: What is running.
        budget: How much of it is done.
    """

    def __init__(self, name: str, budget: Budget) -> None:
        self.name = name
        self.budget = budget
        self.shown = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any
    ) -> None:
        assert isinstance(module, RecordingModule)
        terminal = sys.stderr.isatty()
        now = time.monotonic()
        if not trainer.is_global_zero or now - self.shown < (0.5 if terminal else 60.0):
            return
        self.shown = now
        share = self.budget.progress(trainer.global_step)
        shown = {name.split("/")[-1]: value for name, value in module.readings.items()}
        readings = [f"{share:4.0%} step {trainer.global_step}"]
        for key, form in (
            ("total", "loss {:.3f}"),
            ("ctc", "loss {:.3f}"),
            ("cer", "dev CER {:.1%}"),
            ("rankme", "rank {:.0f}"),
            ("probe_cer", "probe CER {:.1%}"),
            ("audio_hours_per_hour", "{:.0f} h of audio per hour"),
        ):
            if key in shown:
                readings.append(form.format(shown[key]))
        if share > 0.005:
            minutes = self.budget.seconds * (1.0 / share - 1.0) / 60.0
            readings.append(f"{minutes:.0f} min left" if minutes > 1 else "under 1 min left")
        line = f"{self.name}: " + ", ".join(readings)
        if terminal:
            sys.stderr.write(f"\r\x1b[2K{line}")
            sys.stderr.flush()
        else:
            logger.info(line)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.shown and sys.stderr.isatty() and trainer.is_global_zero:
            sys.stderr.write("\n")

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.on_train_end(trainer, module)


def make_trainer(
    name: str,
    config: PretrainConfig | FinetuneConfig,
    run_dir: Path,
    budget: Budget,
    *,
    start_step: int,
    checkpoint_minutes: float,
    devices: int = 1,
    strategy: str = "auto",
) -> pl.Trainer:
    """Return the trainer of a run.

    Args:
        name: What the progress line calls it.
        config: Its settings.
        run_dir: Gets metrics.csv, tensorboard/ and checkpoints/.
        budget: How much of the run is done.
        start_step: Optimizer steps of earlier sittings.
        checkpoint_minutes: Minutes between checkpoints.
        devices: Processes or GPUs.
        strategy: As Lightning's `strategy`.

    Raises:
        ConfigError: This machine has no such accelerator, devices or strategy.
    """
    logs = loggers(run_dir, start_step)
    checkpoints = Checkpoints(run_dir / "checkpoints", checkpoint_minutes)
    try:
        return pl.Trainer(
            accelerator=config.accelerator,
            devices=devices,
            strategy=strategy,
            max_epochs=-1,
            max_steps=-1 if config.max_steps is None else config.max_steps,
            accumulate_grad_batches=config.accumulate,
            gradient_clip_val=config.clip_norm,
            logger=logs,
            callbacks=[checkpoints, ProgressLine(name, budget)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            log_every_n_steps=1,
        )
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:
        raise ConfigError(
            f"`{name}.accelerator` {config.accelerator}, `devices` {devices} and `strategy` "
            f"{strategy} do not work on this machine; accelerator=auto, devices=1 and "
            f"strategy=auto do. Lightning says: {error}"
        ) from error


def fit(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    loader: DataLoader | None = None,
    *,
    checkpoint: Path | None,
) -> None:
    """Train; after Ctrl-C raise `KeyboardInterrupt`, once the callbacks have done their work.

    Lightning would exit the interpreter and leave it deaf to the next Ctrl-C.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def start_encoder(
    config: EncoderConfig | None, init: str | Path | None, reset_top_layers: int = 0
) -> Encoder:
    """Return the encoder that a run starts from: a bundle's, with so many fresh blocks at the top,
    or a fresh one. Of the settings of a fresh one, a bundle's takes the prior and
    the pitch alone."""
    if init is None:
        if config is None:
            raise ValueError("`encoder` or `init` must be given")
        return build_encoder(config)
    encoder = load_init(init)
    if reset_top_layers:
        fresh = build_encoder(encoder.config)
        for block, new in list(zip(encoder.blocks, fresh.blocks, strict=True))[-reset_top_layers:]:
            block.load_state_dict(new.state_dict())
    seconds = getattr(config, "normalization_prior_seconds", 0.0)
    if seconds and isinstance(encoder, SpeechEncoder):
        encoder.set_prior(seconds)
    if getattr(config, "pitch", False) and isinstance(encoder, SpeechEncoder):
        encoder.learn_pitch()
    return encoder


def checkpoint_summary(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of the run so far; {} when there is none."""
    if not path.exists():
        return {}
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    return {"step": int(checkpoint["global_step"]), **checkpoint.get("speechjepa", {})}


def save_json(content: Any, path: Path) -> None:
    """Write JSON, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def quiet_lightning() -> None:
    """Keep Lightning's tips and hardware notes out of the log; warnings of ours remain."""
    import warnings

    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        ".*does not have many workers.*",
        ".*`_log_metrics`.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*Checkpoint directory.*",
        ".*module\\(s\\) in eval mode.*",  # the target encoder is meant to be
    ):
        warnings.filterwarnings("ignore", text)
