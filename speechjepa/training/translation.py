"""Training a translator: an encoder with a head that writes the tokens of another language."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from speechjepa.config import to_dict
from speechjepa.data.batches import Batch, CachedItems
from speechjepa.errors import CollapseError
from speechjepa.models.bundle import Bundle, EncoderConfig, load_bundle, num_parameters, save_bundle
from speechjepa.models.encoder import EncoderOutput
from speechjepa.models.shipped import start_name
from speechjepa.models.speech_to_units import (
    END,
    CtcTranslator,
    SpeechTranslationModel,
    UnitDecoder,
)
from speechjepa.models.translator_files import (
    TranslatorFiles,
    has_translator,
    load_translator,
    save_translator,
)
from speechjepa.nn.transformer import Chunks
from speechjepa.objectives.ctc import ctc_loss, frames_needed
from speechjepa.text.normalize import TextConfig
from speechjepa.text.vocabulary import Vocabulary
from speechjepa.training.callbacks import (
    LAST_CHECKPOINT,
    checkpoint_summary,
    quiet_lightning,
    save_json,
    start_encoder,
)
from speechjepa.training.doctor import CtcDoctor
from speechjepa.training.front_end import fit_front_end, learn_pitch
from speechjepa.training.head_module import HeadModule, fit_module
from speechjepa.training.monitors import diverged
from speechjepa.training.precision import autocast
from speechjepa.training.schedule import Budget
from speechjepa.training.streaming import dev_chunks, learn_to_stream
from speechjepa.training.translation_config import TranslateConfig, resolve_translation_presets
from speechjepa.training.translation_dev import token_error_rate
from speechjepa.training.translation_items import (
    Example,
    TranslationItems,
    leave_out_misfits,
    read_examples,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a translator writes."""

    kind: Literal["units", "characters"]
    num_tokens: int
    """V: units + 1, or the symbols of the vocabulary."""
    vocabulary: Vocabulary | None = None
    """Of characters."""
    source_language: str | None = None
    language: str | None = None


class TranslationModule(HeadModule):
    """Lightning's view of training a translator.

    Args:
        model: Encoder and translator.
        train: Pairs.
        dev: Pairs that the model is chosen by; None = the last step is kept.
        config: Settings, all resolved.
        budget: The run's clock.
        doctor: Watches and says what it sees.
    """

    name = "translate"
    criteria = ("token_error_rate",)
    model: SpeechTranslationModel
    config: TranslateConfig

    def __init__(
        self,
        model: SpeechTranslationModel,
        train: TranslationItems,
        dev: TranslationItems | None,
        config: TranslateConfig,
        budget: Budget,
        doctor: CtcDoctor,
    ) -> None:
        super().__init__(model, config, budget, doctor)
        self.train_data = train
        self.dev_data = dev

    @property
    def items(self) -> CachedItems:
        """Source audio."""
        return self.train_data.items

    @property
    def head(self) -> nn.Module:
        """The translator."""
        return self.model.translator

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss of an augmented batch (nats per token, plus the weighted auxiliary
        losses), logits (B, T, V) and their lengths (B,)."""
        output, chunks = self.encode(batch)
        with autocast(self.device, self.precision_name):
            return self._losses(output, batch, chunks)

    def whole_loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch with nothing masked and nothing frozen."""
        return self._losses(self.model.encoder(batch.waveform, batch.lengths), batch)[0]

    def _losses(
        self, output: EncoderOutput, batch: Batch, chunks: Chunks | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        data, config = self.train_data, self.config
        places = batch.items.tolist()
        token_ids = [data.token_ids[i] for i in places]
        source_ids = [data.source_ids[i] for i in places]
        translator = self.model.translator
        if isinstance(translator, CtcTranslator):
            found = translator(output.features, output.lengths, chunks)
            logits, lengths = found.logits, found.lengths
            loss = ctc_loss(logits, lengths, token_ids).value
            source_logits = found.source_logits
            texts = [data.text_ids[i] for i in places]
            loss = loss + config.target_text_weight * _auxiliary(found.text_logits, lengths, texts)
        else:
            logits, lengths, loss = _teacher_forced(
                translator, output, token_ids, config.label_smoothing
            )
            source_logits = translator.source_logits(output.features)
        frames = output.lengths * translator.config.upsample
        auxiliary = _auxiliary(source_logits, frames, source_ids)
        return loss + config.source_text_weight * auxiliary, logits, lengths

    def watch(self, loss: Tensor, logits: Tensor, lengths: Tensor) -> None:
        """Record a loss; the doctor looks at what CTC writes."""
        if isinstance(self.model.translator, CtcTranslator):
            super().watch(loss, logits, lengths)
        else:
            self.record({"loss/tokens": loss})

    def measure_dev(self) -> dict[str, float] | None:
        """Return the token error rate of the best path on dev; None without dev data."""
        if self.dev_data is None:
            return None
        most = self.config.max_dev_utterances
        found = {"token_error_rate": token_error_rate(self.model, self.dev_data, most)}
        chunks = dev_chunks(self.encoder)
        if chunks is not None and isinstance(self.model.translator, CtcTranslator):
            found["streaming_token_error_rate"] = token_error_rate(
                self.model, self.dev_data, most, chunks
            )
        return found

    def error(self, readings: Mapping[str, Any]) -> float:
        """Return the token error rate, plus that in chunks if read."""
        return sum(float(rate) for name, rate in readings.items() if name != "step")


def _auxiliary(logits: Tensor | None, lengths: Tensor, ids: Sequence[Tensor]) -> Tensor:
    """Return the CTC loss of the utterances that have a text that fits (nats per character)."""
    if logits is None:
        return lengths.new_zeros((), dtype=torch.float32)
    fits = [
        row
        for row, (one, has) in enumerate(zip(ids, lengths.tolist(), strict=True))
        if 0 < frames_needed(one) <= has
    ]
    if not fits:
        return 0.0 * logits.sum()
    return ctc_loss(logits[fits], lengths[fits], [ids[row] for row in fits]).value


def _teacher_forced(
    decoder: UnitDecoder, output: EncoderOutput, token_ids: Sequence[Tensor], smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (B, L + 1, V), their lengths (B,) and the cross-entropy (nats per token)."""
    device = output.features.device
    lengths = torch.tensor([len(ids) + 1 for ids in token_ids], device=device)
    size = int(lengths.max())
    given = torch.full((len(token_ids), size), END, device=device)
    wanted = torch.full_like(given, -1)
    for row, ids in enumerate(token_ids):
        given[row, 1 : len(ids) + 1] = ids.to(device)
        wanted[row, : len(ids)] = ids.to(device)
        wanted[row, len(ids)] = END
    logits, _ = decoder(given, decoder.remember(output.features, output.lengths))
    loss = functional.cross_entropy(
        logits.transpose(1, 2), wanted, ignore_index=-1, label_smoothing=smoothing
    )
    return logits, lengths, loss


def train_translator(
    config: TranslateConfig,
    train: Sequence[Example],
    dev: Sequence[Example],
    run_dir: Path,
    *,
    target: Target,
    text: TextConfig,
    encoder: EncoderConfig | None = None,
    init: str | Path | None = None,
    cache_dir: Path,
) -> Path:
    """Train a translator; continues where an interrupted run stopped.

    Args:
        config: Settings; those left None are chosen from the minutes of parallel speech.
        train: Pairs.
        dev: Pairs that the model is chosen by; may be empty.
        run_dir: Gets config.json, metrics.csv, tensorboard/, doctor.jsonl, bundle/.
        target: What is written.
        text: How the texts of the pairs were normalised.
        encoder: Sizes of a fresh encoder, or of `init` the prior and the pitch.
        init: Bundle whose encoder is the start, and whose translator, if it is of the same kind.
        cache_dir: Where decoded audio is kept.

    Returns:
        The folder of the bundle: the state with the lowest token error rate on dev.

    Raises:
        DataError: There are no pairs, or none fits its frames.
        CollapseError: The loss is no longer finite; the best state before that is in the bundle.
    """
    quiet_lightning()
    pl.seed_everything(config.seed, verbose=False)
    run_dir.mkdir(parents=True, exist_ok=True)
    network = start_encoder(encoder, init, config.reset_top_layers)
    earlier = checkpoint_summary(run_dir / "checkpoints" / LAST_CHECKPOINT)
    doctor = CtcDoctor(run_dir / "doctor.jsonl", earlier.get("step", 0))
    source_vocabulary = _vocabulary([e.source_text for e in train], config.source_text_weight)
    # An autoregressive decoder has no frames for it, and characters are written anyway.
    has_text = config.translator.head == "ctc" and target.kind == "units"
    weight = config.target_text_weight if has_text else 0.0
    text_vocabulary = _vocabulary([e.text for e in train], weight)
    data = read_examples(train, cache_dir, run_dir, source_vocabulary, text_vocabulary)
    dev_data = read_examples(dev, cache_dir, run_dir, None, None) if dev else None
    config = resolve_translation_presets(
        config, data.minutes, pretrained=init is not None, waveform=network.hears_waveform
    )
    files = _describe(config, target, source_vocabulary, text_vocabulary)
    model = SpeechTranslationModel(network, target.num_tokens, files.config)
    _start_translator(model, files, init)
    network.set_dropout(config.dropout, config.drop_path)
    model.translator.set_dropout(config.dropout)
    learn_pitch(config, network)
    config = cast(TranslateConfig, learn_to_stream(config, network))
    fit_front_end(network, data.items, frozen=config.is_frozen)
    leave_out_misfits(data, model, doctor, config.speed_perturbation)
    budget = Budget(config.max_steps, config.minutes)
    module = TranslationModule(model, data, dev_data, config, budget, doctor)
    training = _record(module, init, run_dir)
    try:
        fit_module(module, config, run_dir, earlier)
    except CollapseError as error:
        if not module.best_weights:
            raise
        bundle = _finish(module, files, text, training, run_dir)
        kept = f"The best state before that, of step {module.best['step']}, is kept: {bundle}"
        raise CollapseError(f"{error} {kept}") from None
    return _finish(module, files, text, training, run_dir)


def _record(module: TranslationModule, init: str | Path | None, run_dir: Path) -> dict[str, Any]:
    """Write config.json; return what the bundle says of its training."""
    settings = {
        "translate": to_dict(module.config),
        "init": start_name(init),
        "pair_minutes": module.train_data.minutes,
        "pairs": len(module.train_data.items),
        "parameters": num_parameters(module.model),
    }
    save_json(settings, run_dir / "config.json")
    before = load_bundle(init).training if init is not None else {}
    return before | {"translate": settings}


def _describe(
    config: TranslateConfig,
    target: Target,
    source_vocabulary: Vocabulary | None,
    text_vocabulary: Vocabulary | None,
) -> TranslatorFiles:
    sizes = replace(
        config.translator,
        source_symbols=0 if source_vocabulary is None else len(source_vocabulary),
        text_symbols=0 if text_vocabulary is None else len(text_vocabulary),
    )
    return TranslatorFiles(
        **vars(target),
        config=sizes,
        source_vocabulary=source_vocabulary,
        text_vocabulary=text_vocabulary,
    )


def _start_translator(
    model: SpeechTranslationModel, files: TranslatorFiles, init: str | Path | None
) -> None:
    """Copy the weights of the translator that training starts from, where it is of the same kind.

    Auxiliary heads of other symbols start anew.
    """
    if init is None or not has_translator(Path(init)):
        return
    old, said = load_translator(Path(init), model.encoder)
    alike = ("kind", "num_tokens", "vocabulary", "language")
    weights = old.state_dict()
    mine = model.translator.state_dict()
    kept = {k: t for k, t in weights.items() if k in mine and mine[k].shape == t.shape}
    missing = [k for k in mine if k not in kept and not k.startswith("auxiliary.")]
    if missing or any(getattr(said, name) != getattr(files, name) for name in alike):
        logger.warning("%s: its translator is of another kind; a fresh one is trained", init)
        return
    changed = said.source_vocabulary != files.source_vocabulary
    for name in [k for k in kept if k.startswith("auxiliary.source") and changed]:
        del kept[name]
    if said.text_vocabulary != files.text_vocabulary:
        for name in [k for k in kept if k.startswith("auxiliary.text")]:
            del kept[name]
    model.translator.load_state_dict({**mine, **kept})
    logger.info("the translator starts from that of %s", init)


def _vocabulary(texts: Sequence[str], weight: float) -> Vocabulary | None:
    return Vocabulary.build(texts) if weight > 0 and any(texts) else None


def _finish(
    module: TranslationModule,
    files: TranslatorFiles,
    text: TextConfig,
    training: dict[str, Any],
    run_dir: Path,
) -> Path:
    if not module.best_weights:
        raise diverged(module.global_step, float("nan"), module.name)
    module.model.load_state_dict(module.best_weights)
    module.cpu().eval()
    module.encoder.set_dropout(0.0, 0.0)
    module.model.translator.set_dropout(0.0)
    module.doctor.conclude(module.best)
    training["translate"]["minutes"] = module.budget.seconds / 60
    languages = {cast(str, files.source_language)} - {None}
    bundle = Bundle(
        encoder=module.encoder,
        text=text,
        languages=tuple(sorted(languages)),
        training=training,
        results={"dev_while_training": module.best},
    )
    folder = save_bundle(bundle, run_dir / "bundle")
    save_translator(module.model.translator, files, folder)
    (run_dir / "checkpoints" / LAST_CHECKPOINT).unlink(missing_ok=True)  # nothing to go on with
    return folder
