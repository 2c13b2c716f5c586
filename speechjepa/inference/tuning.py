"""Choosing the weights of a beam search on transcribed speech."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from speechjepa.inference.search import BeamConfig, BeamSearch, Hypothesis, Symbols, greedy_decode
from speechjepa.metrics.error_rate import error_rates
from speechjepa.progress import track

RANGES: dict[str, tuple[float, float]] = {
    "lm_weight": (0.0, 5.0),
    "word_score": (-3.0, 3.0),
    "blank_score": (-3.0, 1.0),
}
"""Where each weight is looked for; the first two as in wav2vec 2.0
(https://arxiv.org/abs/2006.11477, appendix B), with a narrower range for the word score."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Weights that were tried, and the error rates they gave."""

    lm_weight: float
    word_score: float
    blank_score: float
    cer: float
    wer: float


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The outcome of a search for weights."""

    config: BeamConfig
    """The settings with the best weights."""
    best: Trial
    trials: tuple[Trial, ...]
    """All of them, in order; the first ones are the given settings and those without the
    language model."""
    cer_greedy: float
    """Character error rate of the best path on the same utterances (fraction)."""
    wer_greedy: float
    """Word error rate of the best path on the same utterances (fraction)."""


def greedy_texts(logits: Sequence[NDArray[np.float32]], vocabulary: Symbols) -> list[str]:
    """Return the text of the best path of each (T, V) array of logits."""
    return [_one(greedy_decode(*_batch_of_one(item), vocabulary)) for item in logits]


def beam_texts(logits: Sequence[NDArray[np.float32]], search: BeamSearch) -> list[str]:
    """Return the text that a beam search finds for each (T, V) array of logits."""
    return [_one(search.decode(*_batch_of_one(item))) for item in logits]


def _one(hypotheses: Sequence[Hypothesis]) -> str:
    return hypotheses[0].text


def _batch_of_one(logits: NDArray[np.float32]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(np.asarray(logits))[None], torch.tensor([len(logits)])


def tune_beam(
    search: BeamSearch,
    logits: Sequence[NDArray[np.float32]],
    references: Sequence[str],
    *,
    num_trials: int = 30,
    seed: int = 0,
    metric: Literal["cer", "wer"] = "cer",
) -> Tuning:
    """Find the weights of the language model, the word score and the blank score.

    The first half of the trials is drawn uniformly from `RANGES`, the second half around the best
    so far with a shrinking step. The figures of the best trial flatter it: they are the best of
    many on the very utterances it was chosen by.

    Args:
        search: The beam search; its settings are the first trial.
        logits: One (T, V) array per utterance.
        references: What was said in each, normalised.
        num_trials: How many settings to try, at least 2.
        seed: Of the draws.
        metric: What to minimise.
    """
    if len(logits) != len(references) or not len(logits):
        raise ValueError(
            "`logits` and `references` must have the same length, at least 1, but have "
            f"{len(logits)} and {len(references)} instead"
        )
    if num_trials < 2:
        raise ValueError(f"`num_trials` must be at least 2, but is {num_trials} instead")
    greedy = error_rates(references, greedy_texts(logits, search.vocabulary))
    trials: list[Trial] = []

    def rank(trial: Trial) -> tuple[float, float]:
        other = trial.wer if metric == "cer" else trial.cer
        return (getattr(trial, metric), other)

    for weights in track(_proposals(search, trials, rank, num_trials, seed), "tuning", num_trials):
        tried = search.with_config(replace(search.config, **weights))
        rates = error_rates(references, beam_texts(logits, tried))
        trials.append(Trial(**weights, cer=rates.cer, wer=rates.wer))
    best = min(trials, key=rank)
    chosen: dict[str, Any] = {name: getattr(best, name) for name in RANGES}
    return Tuning(
        config=replace(search.config, **chosen),
        best=best,
        trials=tuple(trials),
        cer_greedy=greedy.cer,
        wer_greedy=greedy.wer,
    )


def _proposals(
    search: BeamSearch, trials: list[Trial], rank: Any, num_trials: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield weights to try; `trials` grows while this runs."""
    generator = np.random.default_rng(seed)
    yield {name: getattr(search.config, name) for name in RANGES}
    yield {"lm_weight": 0.0, "word_score": 0.0, "blank_score": 0.0}
    for index in range(2, num_trials):
        progress = index / num_trials
        weights = {}
        for name, (low, high) in RANGES.items():
            if progress < 0.5:
                value = generator.uniform(low, high)
            else:
                center = getattr(min(trials, key=rank), name)
                value = center + generator.normal(0.0, 0.3 * (high - low) * (1.0 - progress))
            weights[name] = round(float(np.clip(value, low, high)), 3)
        yield weights


def as_dict(tuning: Tuning) -> dict[str, Any]:
    """Return what is worth keeping of a search for weights, for a JSON file."""
    return {
        "cer_greedy": tuning.cer_greedy,
        "wer_greedy": tuning.wer_greedy,
        "cer": tuning.best.cer,
        "wer": tuning.best.wer,
        "trials": [asdict(trial) for trial in tuning.trials],
    }
