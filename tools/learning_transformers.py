"""The outside row of tools/benchmark_learning.py: `transformers` pretrains its own wav2vec 2.0.

Theirs: `Wav2Vec2ForPreTraining` with its loss, its feature extractor, the helpers that draw masks
and distractors, and the settings of its pretraining example for the base model (AdamW 1e-3, betas
.9 and .98, eps 1e-6, weight decay .01 of everything, gradients not clipped, 65 % of spans of 10
frames, layer norm throughout); the schedules of its 200,000 steps, a linear rise over 16 % and a
linear fall to 0, and the Gumbel temperature, are those shares of the minutes here.
https://github.com/huggingface/transformers/tree/main/examples/pytorch/speech-pretraining

Ours: the pool and its batches, the clock, the faster of float32 and bfloat16 as for every row, and
that utterances below 2 s, which the example leaves out, stay in: two spans are hidden where they
fit. Fine-tuning is this package's for every row, from the folder that `save_pretrained` wrote: the
network of `Wav2Vec2ForCTC`, weight for weight (tests/models/test_published.py compares the logits),
its waveform convolutions kept as pretrained, as `transformers`' example for CTC keeps them.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from speechjepa.data.batches import Batch, BatchPlan, CachedItems, batch_loader, collate
from speechjepa.data.cache import build_cache
from speechjepa.data.utterance import Utterance
from speechjepa.errors import CollapseError
from speechjepa.models.bundle import default_device, num_parameters
from speechjepa.training.config import PretrainConfig
from speechjepa.training.precision import autocast, pick_precision
from speechjepa.training.schedule import Budget
from speechjepa.workflow.record import write_json

logger = logging.getLogger(__name__)

SIZES: dict[str, Any] = {
    **{"hidden_size": 192, "num_hidden_layers": 8, "num_attention_heads": 3},
    **{"intermediate_size": 768, "conv_dim": (96,) * 7},
    **{"codevector_dim": 192, "proj_codevector_dim": 192},
}
"""As wide and deep as our `tiny`, and with as many parameters, 4.1 M: 4.2 M with the quantizer,
4.0 M fine-tuned. Wider convolutions would only make it slower still."""
LEARNING_RATE = 1e-3
WARMUP = 32_000 / 200_000
MASK_PROB, MASK_FRAMES = 0.65, 10
ACCOUNT = "account.json"


@dataclass
class Account:
    """What a pretraining took so far."""

    steps: int = 0
    seconds: float = 0.0
    audio_seconds: float = 0.0
    precision: str = ""
    loss: float = math.nan
    """Contrastive loss of the last step (nats per hidden frame)."""
    code_perplexity: float = math.nan
    """Of the last step; 1 = every frame has the same code."""


class Run:
    """Their model and optimizer, and how far they are.

    Args:
        config: The budget, the batches, the seed and the precision are used.
        folder: Gets checkpoint.pt.
    """

    def __init__(self, config: PretrainConfig, folder: Path) -> None:
        from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining

        torch.manual_seed(config.seed)
        self.config = config
        self.checkpoint = folder / "checkpoint.pt"
        self.device = default_device()
        settings = Wav2Vec2Config(
            feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, **SIZES
        )
        self.extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
        self.model = cast(Any, Wav2Vec2ForPreTraining(settings))
        self.model.to(self.device).train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=LEARNING_RATE,
            betas=(0.9, 0.98),
            eps=1e-6,
            weight_decay=0.01,
            fused=True,
        )
        self.account = Account()
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.account = Account(**state["account"])

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss per hidden frame (nats), its contrastive part and the code perplexity."""
        from transformers.models.wav2vec2.modeling_wav2vec2 import (
            _compute_mask_indices,
            _sample_negative_indices,
        )

        rows = zip(batch.waveform.numpy(), batch.lengths.tolist(), strict=True)
        waves = [samples[:length] for samples, length in rows]
        given = self.extractor(waves, sampling_rate=16000, padding=True, return_tensors="pt")
        lengths = self.model._get_feat_extract_output_lengths(batch.lengths)
        heard = torch.arange(int(lengths.max())) < lengths[:, None]  # (B, T)
        hidden = _compute_mask_indices(
            tuple(heard.shape),
            MASK_PROB,
            MASK_FRAMES,
            attention_mask=heard.long(),
            min_masks=self.model.config.mask_time_min_masks,
        )
        distractors = _sample_negative_indices(
            tuple(heard.shape), self.model.config.num_negatives, hidden
        )
        output = self.model(
            given.input_values.to(self.device),
            attention_mask=given.attention_mask.to(self.device),
            mask_time_indices=torch.from_numpy(hidden).to(self.device),
            sampled_negative_indices=torch.from_numpy(distractors).to(self.device),
        )
        count = int(hidden.sum())
        return output.loss / count, output.contrastive_loss / count, output.codevector_perplexity

    def seed(self) -> None:
        """Seed what is random in this step: a run that goes on draws what it would have drawn."""
        words = np.random.SeedSequence((self.config.seed, self.account.steps)).generate_state(2)
        np.random.seed(words[0])  # their helpers draw from it
        torch.manual_seed(int(words[1]))

    def step(self, batch: Batch, progress: float) -> None:
        """Take an optimizer step.

        Raises:
            CollapseError: The loss is not finite.
        """
        self.seed()
        rate = min(progress / WARMUP, (1 - progress) / (1 - WARMUP))
        for group in self.optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        self.model.set_gumbel_temperature(max(2.0 * 0.999995 ** (200_000 * progress), 0.5))
        with autocast(self.device, self.account.precision):
            loss, contrastive, perplexity = self.losses(batch)
        self.check(loss)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.account.steps += 1
        self.account.audio_seconds += float(batch.lengths.sum()) / 16000
        self.account.loss = float(contrastive.detach())
        self.account.code_perplexity = float(perplexity.detach())

    def check(self, loss: Tensor) -> None:
        """Raise `CollapseError` unless the loss is finite."""
        if not bool(loss.isfinite()):
            raise CollapseError(
                f"transformers' pretraining diverged: at step {self.account.steps} its loss is "
                f"{float(loss.detach())}; take pretrain.precision=float32 or another seed"
            )

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        partial = self.checkpoint.with_name(self.checkpoint.name + ".partial")
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "account": asdict(self.account)}, partial)
        os.replace(partial, self.checkpoint)


def pretrain_transformers(
    config: PretrainConfig, pool: Sequence[Utterance], folder: Path, *, cache_dir: Path
) -> Path:
    """Pretrain, or go on with a pretraining that was interrupted.

    Args:
        config: Of which the budget, what is heard (`batch_seconds`, `max_seconds`, `min_seconds`),
            `seed`, `precision` and `checkpoint_minutes` are used.
        pool: The audio.
        folder: Gets bundle/, which both this package and `transformers` read, and account.json.
        cache_dir: Where decoded audio is kept.

    Returns:
        The folder of the model.

    Raises:
        CollapseError: The loss, or a weight, is no longer finite; nothing is kept of it.
        DataError: No utterance can be decoded.
    """
    bundle = folder / "bundle"
    if (bundle / "config.json").exists():
        return bundle
    folder.mkdir(parents=True, exist_ok=True)
    cache = build_cache(pool, cache_dir)
    items = CachedItems(cache, config.max_seconds, config.min_seconds)
    run = Run(config, folder)
    _train(run, items)
    if not all(bool(p.isfinite().all()) for p in run.model.parameters()):
        raise CollapseError("transformers' pretraining diverged in its last step")
    found = {
        "steps": run.account.steps,
        "minutes": run.account.seconds / 60,
        "audio_hours_seen": run.account.audio_seconds / 3600,
        "unlabelled_hours": cache.seconds / 3600,
        "parameters": num_parameters(run.model),
        **{key: asdict(run.account)[key] for key in ("precision", "loss", "code_perplexity")},
    }
    write_json(folder / ACCOUNT, found)
    partial = folder / "bundle.partial"
    shutil.rmtree(partial, ignore_errors=True)
    run.model.save_pretrained(partial)
    run.extractor.save_pretrained(partial)
    partial.rename(bundle)
    run.checkpoint.unlink(missing_ok=True)
    return bundle


def _train(run: Run, items: CachedItems) -> None:
    config, account = run.config, run.account
    if not account.precision:
        requests = BatchPlan(items.lengths, min(40.0, config.batch_seconds)).fullest()
        batch = collate([items[request] for request in requests])
        run.seed()
        account.precision = pick_precision(
            config.precision, run.device, lambda: run.losses(batch)[0]
        )
        run.optimizer.zero_grad()
    plan = BatchPlan(items.lengths, config.batch_seconds, seed=config.seed, start=account.steps)
    budget = Budget(config.max_steps, config.minutes)
    budget.start(account.seconds)
    saved = told = time.monotonic()
    for batch in batch_loader(items, plan):
        progress = budget.progress(account.steps)
        if progress >= 1.0:
            return
        run.step(batch, progress)
        account.seconds = budget.seconds
        if time.monotonic() - saved >= 60 * config.checkpoint_minutes:
            run.save()
            saved = time.monotonic()
        if time.monotonic() - told >= 60:
            told = time.monotonic()
            logger.info(
                "transformers: %.0f %%, step %d, contrastive loss %.3f, code perplexity %.0f",
                *(100 * progress, account.steps, account.loss, account.code_perplexity),
            )


def read_account(bundle: Path) -> dict[str, Any]:
    """Return what the pretraining of a model took, by the names of this package's own."""
    found: dict[str, Any] = json.loads((bundle.parent / ACCOUNT).read_text(encoding="utf-8"))
    return found
