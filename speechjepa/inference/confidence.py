"""Scores of words that mean something: measured and fitted on transcribed speech, then applied.

A word is right where the alignment of words that gives the word error rate says so. Its raw
log-probability (`WordSpan.log_probability`) becomes the probability that it is right by the
`ScoreMap` that the stage `evaluate` of a recipe fits on dev and writes into the bundle: one for
the best path and one for the beam search, whose words are less often wrong than they look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from speechjepa.errors import ModelError
from speechjepa.inference.align import WordSpan, align_words
from speechjepa.metrics.calibration import (
    ScoreMap,
    area_under_roc,
    expected_calibration_error,
    fit_score_map,
    log_odds,
    reliability,
)
from speechjepa.metrics.error_rate import align
from speechjepa.text.vocabulary import Vocabulary

FEWEST_WORDS = 50
"""With fewer words on dev no map is fitted."""


@dataclass(frozen=True, kw_only=True)
class HeardWords:
    """The words that a model heard in transcribed speech, one entry each."""

    utterance: NDArray[np.int64]
    """(N,) number of the utterance."""
    log_probability: NDArray[np.float64]
    """(N,) raw, of the whole word (nats)."""
    mean_posterior: NDArray[np.float64]
    """(N,) of its characters."""
    correct: NDArray[np.bool]
    """(N,) whether it was said."""

    @property
    def log_odds(self) -> NDArray[np.float64]:
        """(N,) of the raw log-probabilities (nats)."""
        return np.array([log_odds(value) for value in self.log_probability])


def hear_words(
    logits: Sequence[NDArray[np.float32]],
    texts: Sequence[str],
    references: Sequence[str],
    vocabulary: Vocabulary,
) -> HeardWords:
    """Score the words of recognised texts, and say which are right.

    Args:
        logits: (T, V) of each utterance.
        texts: What was recognised in each; a text with more symbols than frames is left out.
        references: What was said in each.
        vocabulary: The V symbols.
    """
    rows: list[tuple[int, float, float, bool]] = []
    for index, (scores, text, reference) in enumerate(zip(logits, texts, references, strict=True)):
        words = text.split()
        if not words:
            continue
        spans = align_words(
            torch.from_numpy(np.asarray(scores)), " ".join(words), vocabulary, frame_seconds=1.0
        )
        aligned = align(reference.split(), words)
        right = [operation == "equal" for operation, _, word in aligned if word is not None]
        rows += [
            (index, span.log_probability, span.score, correct)
            for span, correct in zip(spans or (), right if spans else (), strict=True)
        ]
    return HeardWords(
        utterance=np.array([row[0] for row in rows], np.int64),
        log_probability=np.array([row[1] for row in rows], np.float64),
        mean_posterior=np.array([row[2] for row in rows], np.float64),
        correct=np.array([row[3] for row in rows], bool),
    )


def measure_confidence(heard: HeardWords, stored: ScoreMap | None = None) -> dict[str, Any] | None:
    """Fit a map on heard words and say how well scores are calibrated, before and after.

    `ece_held_out` is the honest figure: fitted on every other utterance and measured on the rest,
    and the other way round. `ece_fitted` is measured on the words that the map was fitted on.

    Args:
        heard: Words of transcribed speech.
        stored: The map that the model carries, measured too.

    Returns:
        Figures and reliability bins for results.json; None with fewer than FEWEST_WORDS words.
    """
    correct, x = heard.correct, heard.log_odds
    if len(correct) < FEWEST_WORDS:
        return None
    score_map = fit_score_map(x, correct)
    fitted = _apply(score_map, x)
    held_out = np.empty(len(x))
    odd = heard.utterance % 2 == 1
    for half in (odd, ~odd):
        # One half may be empty where a single utterance holds every word.
        other = fit_score_map(x[~half], correct[~half]) if (~half).any() else score_map
        held_out[half] = _apply(other, x[half])
    temperature = fit_score_map(x, correct, use_offset=False)
    raw = np.exp(heard.log_probability)
    return {
        "num_words": len(correct),
        "accuracy": float(correct.mean()),
        "area_under_roc": area_under_roc(fitted, correct),
        "area_under_roc_mean_posterior": area_under_roc(heard.mean_posterior, correct),
        "ece_mean_posterior": expected_calibration_error(heard.mean_posterior, correct),
        "ece_raw": expected_calibration_error(raw, correct),
        "ece_temperature_only": expected_calibration_error(_apply(temperature, x), correct),
        "ece_fitted": expected_calibration_error(fitted, correct),
        "ece_held_out": expected_calibration_error(held_out, correct),
        "ece_held_out_equal_mass": expected_calibration_error(held_out, correct, equal_mass=True),
        "ece_stored": None
        if stored is None
        else expected_calibration_error(_apply(stored, x), correct),
        "map": asdict(score_map),
        "bins_mean_posterior": [asdict(one) for one in reliability(heard.mean_posterior, correct)],
        "bins_held_out": [asdict(one) for one in reliability(held_out, correct)],
    }


def _apply(score_map: ScoreMap, x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([score_map(value) for value in x])


def stored_map(calibration: Mapping[str, Mapping[str, float]], *, use_lm: bool) -> ScoreMap | None:
    """Return the map that a model carries for a way of decoding; None where it carries none.

    Raises:
        ModelError: The stored map is damaged.
    """
    entry = calibration.get("lm" if use_lm else "greedy")
    if entry is None:
        return None
    try:
        return ScoreMap(**entry)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the model's `calibration` is damaged: {error}") from error


def calibrate(words: Sequence[WordSpan], score_map: ScoreMap | None) -> list[WordSpan]:
    """Return words whose scores are probabilities of being right; as they are without a map."""
    if score_map is None:
        return list(words)
    return [
        replace(word, score=score_map(log_odds(word.log_probability)))
        if math.isfinite(word.log_probability)
        else word
        for word in words
    ]
