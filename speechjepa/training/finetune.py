"""Fine-tuning: CTC on characters from minutes of labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor

from speechjepa.config import to_dict
from speechjepa.data.batches import Batch, BatchPlan, batch_loader, collate
from speechjepa.data.utterance import Utterance
from speechjepa.errors import CollapseError, DataError
from speechjepa.models.bundle import (
    Bundle,
    EncoderConfig,
    load_bundle,
    num_parameters,
    save_bundle,
)
from speechjepa.models.ctc import CtcModel
from speechjepa.models.encoder import Encoder, EncoderOutput
from speechjepa.nn.transformer import Chunks
from speechjepa.objectives.ctc import ctc_loss
from speechjepa.text.normalize import TextConfig, normalize_text
from speechjepa.training.augmented import encode_augmented
from speechjepa.training.callbacks import (
    LAST_CHECKPOINT,
    checkpoint_summary,
    fit,
    make_trainer,
    quiet_lightning,
    save_json,
    start_encoder,
)
from speechjepa.training.config import FinetuneConfig
from speechjepa.training.doctor import CtcDoctor
from speechjepa.training.inherit import inherit_head
from speechjepa.training.labelled import (
    LabelledItems,
    greedy_error_rates,
    leave_out_misfits,
    read_labelled,
)
from speechjepa.training.logs import RecordingModule
from speechjepa.training.monitors import diverged
from speechjepa.training.precision import autocast, pick_precision
from speechjepa.training.presets import resolve_presets
from speechjepa.training.schedule import (
    Budget,
    layer_groups,
    parameter_groups,
    set_learning_rate,
    tri_stage,
)
from speechjepa.training.streaming import dev_chunks, dev_error, learn_to_stream

logger = logging.getLogger(__name__)

CHECKPOINT_MINUTES = 3.0
LOST_LOSSES = 5  # in a row that are not finite: nothing is learned any more


class FinetuneModule(RecordingModule):
    """Lightning's view of CTC fine-tuning.

    Args:
        model: Encoder and head.
        train: Labelled items.
        dev: Labelled items the model is chosen by; None = the last step is kept.
        config: Settings, all resolved.
        budget: The run's clock.
        doctor: Watches and says what it sees.
    """

    def __init__(
        self,
        model: CtcModel,
        train: LabelledItems,
        dev: LabelledItems | None,
        config: FinetuneConfig,
        budget: Budget,
        doctor: CtcDoctor,
    ) -> None:
        super().__init__()
        self.model = model
        self.train_data = train
        self.dev_data = dev
        self.config = config
        self.budget = budget
        self.doctor = doctor
        self.precision_name = "float32"
        self.best: dict[str, Any] = {"cer": float("inf"), "wer": float("inf"), "step": 0}
        self.best_weights: dict[str, Tensor] = {}
        self._evaluated = -1

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        return self.budget.progress(self.global_step)

    @property
    def encoder(self) -> Encoder:
        """The encoder being fine-tuned."""
        return self.model.encoder

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; the head learns fastest, each block slower than the one above it."""
        config = self.config
        top = cast(float, config.learning_rate)
        head, factor = self.model.head.named_parameters(), config.head_learning_rate_factor
        groups = parameter_groups(head, top * factor, config.weight_decay)
        if not config.freeze_encoder:
            decay = cast(float, config.layer_decay)
            below = layer_groups(self.encoder, self.encoder.blocks, top, decay, config.weight_decay)
            groups += [group | {"encoder": True} for group in below]
        return torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-8, fused=True)

    def encode(self, batch: Batch) -> EncoderOutput:
        """Return the encoder's output of an augmented batch."""
        with autocast(self.device, self.precision_name):
            return encode_augmented(
                self.encoder, batch, self.config, frozen=self._encoder_is_frozen
            )

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the CTC loss of an augmented batch (nats per character), its logits (B, T, V) and
        their lengths (B,)."""
        output = self.encode(batch)
        logits = self.model.head_logits(output.features)
        logit_lengths = output.lengths * self.model.upsample
        loss = ctc_loss(logits, logit_lengths, self._token_ids(batch))
        return loss.value, logits, logit_lengths

    def loss_of(self, batch: Batch) -> Tensor:
        """Return the loss of an augmented batch, a scalar, with the weights as they are."""
        return self.losses(batch)[0]

    def whole_loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch with nothing masked and nothing frozen."""
        logits, lengths = self.model(batch.waveform, batch.lengths)
        return ctc_loss(logits, lengths, self._token_ids(batch)).value

    def _token_ids(self, batch: Batch) -> list[Tensor]:
        return [self.train_data.token_ids[i] for i in batch.items.tolist()]

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the loss of a batch."""
        begins_step = self.between_steps
        self.begin_batch(batch)
        loss, logits, lengths = self.losses(batch)
        if self.losses_lost(loss) >= LOST_LOSSES:
            self.doctor.lost(self.global_step, float(loss.detach()))
            raise diverged(self.global_step, float(loss.detach()), "finetune")
        if begins_step and self.global_step % 10 == 0:
            blanks = self.doctor.watch(self.global_step, float(loss.detach()), logits, lengths)
            self.record({"loss/ctc": loss.detach(), "monitor/blank_ratio": blanks})
        return loss

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
        if due and step != self._evaluated:
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

    def _evaluate(self, step: int) -> None:
        if self.dev_data is None:
            self._keep({"cer": None, "wer": None, "step": step})
            return
        rates = self.measure(self.dev_data)
        self.record({"dev/cer": rates.cer, "dev/wer": rates.wer})
        self.doctor.heard(step, rates.cer)
        found = {"cer": rates.cer, "wer": rates.wer, "step": step}
        chunks = dev_chunks(self.encoder)
        if chunks is not None:
            found["cer_streaming"] = self.measure(self.dev_data, chunks).cer
            self.record({"dev/cer_streaming": found["cer_streaming"]})
        if dev_error(found) < dev_error(self.best):
            self._keep(found)
        readings = (step - self.best["step"]) // cast(int, self.config.evaluate_every)
        if self.config.patience is not None and readings >= self.config.patience:
            logger.info("no better dev CER in %d readings: stopping at step %d", readings, step)
            self.trainer.should_stop = True

    def _keep(self, best: dict[str, Any]) -> None:
        if not self.sound():
            return
        self.best = best
        self.best_weights = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def measure(self, data: LabelledItems, chunks: Chunks | None = None) -> Any:
        """Return greedy error rates on (an even sample of) labelled items, perhaps in chunks."""
        self.model.eval()
        most = self.config.max_dev_utterances
        with autocast(self.device, self.precision_name):
            rates = greedy_error_rates(self.model, data, most, chunks)
        self.model.train()
        return rates

    @property
    def _encoder_is_frozen(self) -> bool:
        config = self.config
        return config.freeze_encoder or self.progress < cast(float, config.freeze_finetune_updates)


def finetune(
    config: FinetuneConfig,
    train: Sequence[Utterance],
    dev: Sequence[Utterance],
    run_dir: Path,
    *,
    text: TextConfig,
    encoder: EncoderConfig | None = None,
    init: str | Path | None = None,
    cache_dir: Path,
) -> Path:
    """Fine-tune an encoder for CTC on characters; continues where an interrupted run stopped.

    Args:
        config: Settings; those left None are chosen from the minutes of labels.
        train: Labelled utterances.
        dev: Labelled utterances the model is chosen by; may be empty.
        run_dir: Gets config.json, metrics.csv, tensorboard/, doctor.jsonl, bundle/.
        text: Normalisation of transcripts.
        encoder: Sizes of a fresh encoder, when there is no `init`.
        init: Bundle whose encoder is the start.
        cache_dir: Where decoded audio is kept.

    Returns:
        The folder of the bundle: the state with the lowest dev CER.

    Raises:
        DataError: No utterance is labelled, or none of the labels fits its frames.
        CollapseError: The loss is no longer finite; the best state before that is in the bundle.
    """
    quiet_lightning()
    pl.seed_everything(config.seed, verbose=False)
    run_dir.mkdir(parents=True, exist_ok=True)
    network = start_encoder(encoder, init, config.reset_top_layers)
    earlier = checkpoint_summary(run_dir / "checkpoints" / LAST_CHECKPOINT)
    doctor = CtcDoctor(run_dir / "doctor.jsonl", earlier.get("step", 0))
    labelled = [u for u in train if u.text and normalize_text(u.text, text)]
    if not labelled:
        raise DataError(f"none of the {len(train)} training utterances has a transcript")
    data, dev_data = read_labelled(labelled, dev, text, cache_dir, run_dir)
    config = resolve_presets(
        config,
        data.minutes,
        pretrained=init is not None,
        frame_rate=16000 / network.hop,
        waveform_front_end=network.hears_waveform,
    )
    config = learn_to_stream(config, network, data.items)
    network.set_dropout(config.dropout, config.drop_path)
    model = CtcModel(network, len(data.vocabulary), cast(int, config.upsample))
    start = _start_head(model, data, init, config)
    leave_out_misfits(data, model, doctor)
    budget = Budget(config.max_steps, config.minutes)
    module = FinetuneModule(model, data, dev_data, config, budget, doctor)
    settings = {
        **{"finetune": to_dict(config), "init": None if init is None else str(init)},
        "label_minutes": data.minutes,
        "utterances": len(data.items),
        "parameters": num_parameters(model),
    }
    save_json(settings, run_dir / "config.json")
    training = start.training | {"finetune": settings}
    try:
        fit_module(module, config, run_dir, earlier)
    except CollapseError as error:
        if not module.best_weights:
            raise
        kept = f"The best state before that, of step {module.best['step']}, is kept"
        raise CollapseError(f"{error} {kept}: {_finish(module, text, training, run_dir)}") from None
    return _finish(module, text, training, run_dir)


def _start_head(
    model: CtcModel, data: LabelledItems, init: str | Path | None, config: FinetuneConfig
) -> Bundle:
    start = load_bundle(init) if init is not None else Bundle(encoder=model.encoder)
    if config.inherit_head:
        inherit_head(model, data.vocabulary, start)
    return start


def _finish(
    module: FinetuneModule, text: TextConfig, training: dict[str, Any], run_dir: Path
) -> Path:
    if not module.best_weights:
        raise diverged(module.global_step, float("nan"), "finetune")
    (run_dir / "checkpoints" / LAST_CHECKPOINT).unlink(missing_ok=True)  # nothing to go on with
    module.model.load_state_dict(module.best_weights)
    module.cpu().eval()
    module.encoder.set_dropout(0.0, 0.0)
    module.doctor.conclude(module.best)
    training["finetune"]["minutes"] = module.budget.seconds / 60
    data = module.train_data
    bundle = Bundle(
        encoder=module.encoder,
        ctc=module.model,
        vocabulary=data.vocabulary,
        text=text,
        languages=tuple(sorted({u.language for u in data.utterances if u.language})),
        training=training,
        results={"dev_while_training": module.best},
    )
    return save_bundle(bundle, run_dir / "bundle")


def fit_module(
    module: FinetuneModule, config: FinetuneConfig, run_dir: Path, earlier: dict[str, Any]
) -> None:
    """Train a module to the end of its budget, from where an earlier sitting stopped."""
    checkpoint = run_dir / "checkpoints" / LAST_CHECKPOINT
    if earlier:
        logger.info("continuing %s after step %d", checkpoint, earlier["step"])
    trainer = make_trainer(
        "finetune",
        config,
        run_dir,
        module.budget,
        start_step=earlier.get("step", 0),
        checkpoint_minutes=CHECKPOINT_MINUTES,
    )
    items = module.train_data.items
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
