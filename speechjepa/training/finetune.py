"""Fine-tuning: CTC on characters from minutes of labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
from torch import Tensor, nn

from speechjepa.config import to_dict
from speechjepa.data.batches import Batch, CachedItems
from speechjepa.data.utterance import Utterance
from speechjepa.errors import CollapseError, DataError
from speechjepa.metrics.error_rate import ErrorRates
from speechjepa.models.bundle import (
    Bundle,
    EncoderConfig,
    load_bundle,
    num_parameters,
    save_bundle,
)
from speechjepa.models.ctc import CtcModel
from speechjepa.models.encoder import Encoder
from speechjepa.models.shipped import start_name
from speechjepa.nn.transformer import Chunks
from speechjepa.objectives.ctc import ctc_loss
from speechjepa.text.normalize import TextConfig
from speechjepa.text.tones import writes_tones
from speechjepa.training.callbacks import (
    LAST_CHECKPOINT,
    checkpoint_summary,
    quiet_lightning,
    save_json,
    start_encoder,
)
from speechjepa.training.config import FinetuneConfig
from speechjepa.training.doctor import CtcDoctor
from speechjepa.training.front_end import fit_front_end, learn_pitch
from speechjepa.training.head_module import HeadModule, fit_module
from speechjepa.training.head_start import MOST_WEIGHTS, level_blank, train_head
from speechjepa.training.inherit import has_same_head, inherit_head
from speechjepa.training.labelled import (
    LabelledItems,
    greedy_error_rates,
    leave_out_misfits,
    read_labelled,
    transcript,
)
from speechjepa.training.monitors import diverged
from speechjepa.training.presets import preset_upsample, resolve_presets
from speechjepa.training.schedule import Budget
from speechjepa.training.streaming import as_on_a_stream, dev_chunks, dev_error, learn_to_stream

logger = logging.getLogger(__name__)


class FinetuneModule(HeadModule):
    """Lightning's view of CTC fine-tuning.

    Args:
        model: Encoder and head.
        train: Labelled items.
        dev: Labelled items the model is chosen by; None = the last state is kept.
        config: Settings, all resolved.
        budget: The run's clock.
        doctor: Watches and says what it sees.
    """

    name = "finetune"
    criteria = ("cer", "wer")
    model: CtcModel

    def __init__(
        self,
        model: CtcModel,
        train: LabelledItems,
        dev: LabelledItems | None,
        config: FinetuneConfig,
        budget: Budget,
        doctor: CtcDoctor,
    ) -> None:
        super().__init__(model, config, budget, doctor)
        self.train_data = train
        self.dev_data = dev

    @property
    def items(self) -> CachedItems:
        """Labelled audio."""
        return self.train_data.items

    @property
    def head(self) -> nn.Module:
        """The linear head."""
        return self.model.head

    def start_head(self) -> None:
        """Train the head by itself."""
        steps = cast(int, self.config.head_steps)
        if steps:
            train_head(self.model, self.train_data, steps, seed=self.config.seed)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the CTC loss of an augmented batch (nats per character), its logits (B, T, V) and
        their lengths (B,)."""
        rate, boundary = 16000 / self.encoder.hop, self.train_data.vocabulary.word_boundary_id
        token_ids = self._token_ids(batch)
        batch, token_ids = as_on_a_stream(batch, token_ids, self.config, rate, boundary)
        output, _ = self.encode(batch)
        logits = self.model.head_logits(output.features)
        logit_lengths = output.lengths * self.model.upsample
        loss = ctc_loss(logits, logit_lengths, token_ids)
        return loss.value, logits, logit_lengths

    def whole_loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch with nothing masked and nothing frozen."""
        logits, lengths = self.model(batch.waveform, batch.lengths)
        return ctc_loss(logits, lengths, self._token_ids(batch)).value

    def _token_ids(self, batch: Batch) -> list[Tensor]:
        return [self.train_data.token_ids[i] for i in batch.items.tolist()]

    def measure_dev(self) -> dict[str, float] | None:
        """Return greedy error rates on dev; None without dev data."""
        if self.dev_data is None:
            return None
        rates = self.measure(self.dev_data)
        found = {"cer": rates.cer, "wer": rates.wer}
        chunks = dev_chunks(self.encoder)
        if chunks is not None:
            found["cer_streaming"] = self.measure(self.dev_data, chunks).cer
        return found

    def error(self, readings: Mapping[str, Any]) -> float:
        """Return the CER, plus that in chunks if read."""
        return dev_error(readings)

    def measure(self, data: LabelledItems, chunks: Chunks | None = None) -> ErrorRates:
        """Return greedy error rates on (an even sample of) labelled items, perhaps in chunks."""
        return greedy_error_rates(self.model, data, self.config.max_dev_utterances, chunks)


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
        encoder: Sizes of a fresh encoder, or of `init` the prior and the pitch.
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
    labelled = [u for u in train if transcript(u, text)]
    if not labelled:
        raise DataError(f"none of the {len(train)} training utterances has a transcript")
    data, dev_data = read_labelled(labelled, dev, text, cache_dir, run_dir)
    start = Bundle(encoder=network) if init is None else load_bundle(init)
    config = _settle(config, data, network, start, pretrained=init is not None)
    fit_front_end(network, data.items, frozen=config.is_frozen)
    network.set_dropout(config.dropout, config.drop_path)
    model = CtcModel(network, len(data.vocabulary), cast(int, config.upsample))
    inherited = inherit_head(model, data.vocabulary, start) if config.inherit_head else []
    leave_out_misfits(data, model, doctor, config.speed_perturbation)
    if not inherited:
        level_blank(model, data)
    budget = Budget(config.max_steps, config.minutes)
    module = FinetuneModule(model, data, dev_data, config, budget, doctor)
    settings = {
        **{"finetune": to_dict(config), "init": start_name(init)},
        **{"label_minutes": data.minutes, "utterances": len(data.items)},
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


def _settle(
    config: FinetuneConfig,
    data: LabelledItems,
    network: Encoder,
    start: Bundle,
    *,
    pretrained: bool,
) -> FinetuneConfig:
    """Return the settings with none left open, and the encoder ready to stream, and hearing the
    pitch, where they say."""
    is_small = network.width * len(data.vocabulary) <= MOST_WEIGHTS
    frame_rate = 16000 / network.hop
    upsample = config.upsample or preset_upsample(frame_rate)
    is_known = config.inherit_head and has_same_head(data.vocabulary, upsample, start)
    config = resolve_presets(
        config,
        data.minutes,
        pretrained=pretrained,
        frame_rate=frame_rate,
        waveform_front_end=network.hears_waveform,
        head_is_new=is_small and not is_known,
        fine_tuned=start.ctc is not None and not network.hears_waveform,
    )
    if config.pitch is None:
        config = replace(config, pitch=writes_tones(data.texts))
    learn_pitch(config, network)
    return learn_to_stream(config, network)


def _finish(
    module: FinetuneModule, text: TextConfig, training: dict[str, Any], run_dir: Path
) -> Path:
    if not module.best_weights:
        raise diverged(module.global_step, float("nan"), "finetune")
    module.model.load_state_dict(module.best_weights)
    module.cpu().eval()
    module.encoder.set_dropout(0.0, 0.0)
    module.doctor.conclude(module.best)
    training["finetune"]["minutes"] = module.budget.seconds / 60
    training["finetune"]["steps"] = module.global_step
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
    folder = save_bundle(bundle, run_dir / "bundle")
    (run_dir / "checkpoints" / LAST_CHECKPOINT).unlink(missing_ok=True)  # nothing to go on with
    return folder
