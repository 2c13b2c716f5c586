"""Whether confidences mean what they say: reliability, calibration error, and a map that mends it.

A score is calibrated when of all words that score 0.8 eight in ten are right. Guo et al., 2017
(https://arxiv.org/abs/1706.04599), sections 2 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUM_BINS = 15
"""As in Guo et al., 2017."""
MAX_LOG_ODDS = 30.0
"""Log-odds beyond this are taken for it (nats): a score of 1 would need an infinite one."""
MAX_TEMPERATURE = 1000.0
"""From here on the scores say nothing, and every word gets the share of right ones."""
_RIDGE = 1e-3
_NEWTON_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Scores that lie close together, and how often they were right."""

    low: float
    """The least score that belongs here."""
    high: float
    """The largest score that belongs here."""
    count: int
    confidence: float
    """Mean score."""
    accuracy: float
    """Share that is right."""


@dataclass(frozen=True, kw_only=True)
class ScoreMap:
    """From the log-odds of a raw score to the probability of being right.

        p = sigmoid(log_odds / temperature + offset)

    Temperature scaling is the case without offset (Guo et al., 2017, section 4.2), Platt scaling
    (1999, https://doi.org/10.1145/1102351.1102430 reviews it) the case with it. The offset is
    needed where a model is wrong far more often than any single temperature can say: cooling moves
    scores towards one half, and of the words of a model trained on minutes a tenth may be right.
    """

    temperature: float = 1.0
    """Above 1 = the raw score was too sure of itself."""
    offset: float = 0.0
    """Nats."""

    def __post_init__(self) -> None:
        if not (0 < self.temperature <= MAX_TEMPERATURE and math.isfinite(self.offset)):
            raise ValueError(
                f"`temperature` must be in (0, {MAX_TEMPERATURE:g}] and `offset` finite, but they "
                f"are {self.temperature} and {self.offset} instead"
            )

    def __call__(self, log_odds: float) -> float:
        """Return the probability of being right, in (0, 1)."""
        clipped = min(max(log_odds, -MAX_LOG_ODDS), MAX_LOG_ODDS)
        return _sigmoid(clipped / self.temperature + self.offset)


def log_odds(log_probability: float) -> float:
    """Return log p - log (1 - p) of a log-probability (nats), within +-MAX_LOG_ODDS."""
    if log_probability >= 0:
        return MAX_LOG_ODDS
    # log (1 - p), exact for p near 0 and near 1.
    rest = math.log(-math.expm1(log_probability))
    return min(max(log_probability - rest, -MAX_LOG_ODDS), MAX_LOG_ODDS)


def reliability(
    scores: ArrayLike, correct: ArrayLike, *, num_bins: int = NUM_BINS, equal_mass: bool = False
) -> list[ReliabilityBin]:
    """Sort scores into bins; empty bins are left out.

    Args:
        scores: (N,) in [0, 1].
        correct: (N,) whether each was right.
        num_bins: How many bins.
        equal_mass: Bins that hold equally many scores, rather than bins of equal width (lower
            bound included, upper excluded, the last one closed).
    """
    p, right = _checked(scores, correct)
    if num_bins < 1:
        raise ValueError(f"`num_bins` must be at least 1, but is {num_bins} instead")
    if equal_mass:
        groups = np.array_split(np.argsort(p, kind="stable"), num_bins)
        bounds = [(float(p[g].min()), float(p[g].max())) if len(g) else (0.0, 0.0) for g in groups]
    else:
        place = np.minimum((p * num_bins).astype(int), num_bins - 1)
        groups = [np.flatnonzero(place == index) for index in range(num_bins)]
        bounds = [(index / num_bins, (index + 1) / num_bins) for index in range(num_bins)]
    return [
        ReliabilityBin(
            low=low,
            high=high,
            count=len(group),
            confidence=float(p[group].mean()),
            accuracy=float(right[group].mean()),
        )
        for group, (low, high) in zip(groups, bounds, strict=True)
        if len(group)
    ]


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the expected calibration error of reliability bins, in [0, 1].

        ECE = sum over bins of (count / N) |accuracy - confidence|

    Guo et al., 2017, equation 3 (https://arxiv.org/abs/1706.04599). 0 without any score.
    """
    total = sum(one.count for one in bins)
    if not total:
        return 0.0
    return sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / total


def expected_calibration_error(
    scores: ArrayLike, correct: ArrayLike, *, num_bins: int = NUM_BINS, equal_mass: bool = False
) -> float:
    """Return the expected calibration error of scores; arguments as `reliability`."""
    return calibration_error(reliability(scores, correct, num_bins=num_bins, equal_mass=equal_mass))


def fit_score_map(log_odds: ArrayLike, correct: ArrayLike, *, use_offset: bool = True) -> ScoreMap:
    """Return the map with the highest likelihood of what was right and wrong.

    Newton's method on the logistic log-likelihood, with the smoothed targets of Platt (1999),
    (N+ + 1) / (N+ + 2) and 1 / (N- + 2), so that words that are all right ask for no infinite
    offset. The temperature is positive: a map never turns the order of scores round.

    Args:
        log_odds: (N,) of the raw scores (nats).
        correct: (N,) whether each was right.
        use_offset: False = temperature scaling alone.
    """
    x = np.clip(np.asarray(log_odds, np.float64), -MAX_LOG_ODDS, MAX_LOG_ODDS)
    right = np.asarray(correct, bool)
    if x.shape != right.shape or x.ndim != 1 or not len(x):
        raise ValueError(
            f"`log_odds` and `correct` must be (N,) with N at least 1, but are {x.shape} and "
            f"{right.shape} instead"
        )
    positives = int(right.sum())
    targets = np.where(right, (positives + 1) / (positives + 2), 1 / (len(x) - positives + 2))
    columns = np.stack([x, np.ones_like(x)], axis=1)[:, : 2 if use_offset else 1]  # (N, 2 or 1)
    found = _newton(columns, targets)
    least = 1.0 / MAX_TEMPERATURE
    if found[0] < least:
        offset = _newton(np.ones((len(x), 1)), targets, start=0.0)[0] if use_offset else 0.0
        return ScoreMap(temperature=MAX_TEMPERATURE, offset=float(offset))
    return ScoreMap(temperature=float(1 / found[0]), offset=float(found[1]) if use_offset else 0.0)


def area_under_roc(scores: ArrayLike, correct: ArrayLike) -> float | None:
    """Return the probability that a right word scores above a wrong one; a tie counts a half.

    It is what calibration cannot give: scores that are all equal to the share of right words are
    perfectly calibrated, and worth nothing (0.5). None where all are right or all wrong.
    """
    p, right = _checked(scores, correct)
    positives, negatives = int(right.sum()), int((~right).sum())
    if not positives or not negatives:
        return None
    _, places, counts = np.unique(p, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    ranks = (below + (counts - 1) / 2)[places]  # equal scores share their mean rank
    above = float(ranks[right].sum()) - positives * (positives - 1) / 2
    return above / (positives * negatives)


def _newton(
    columns: NDArray[np.float64], targets: NDArray[np.float64], start: float = 1.0
) -> NDArray[np.float64]:
    """Maximise the logistic log-likelihood, halving steps that do not help."""
    prior = np.zeros(columns.shape[1])
    prior[0] = start
    weights = prior.copy()

    def cost(at: NDArray[np.float64]) -> float:
        z = columns @ at
        likelihood = np.logaddexp(0.0, z) - targets * z
        return float(likelihood.sum() + 0.5 * _RIDGE * ((at - prior) ** 2).sum())

    now = cost(weights)
    for _ in range(_NEWTON_STEPS):
        p = 1 / (1 + np.exp(-(columns @ weights)))
        gradient = columns.T @ (p - targets) + _RIDGE * (weights - prior)
        curvature = (columns * (p * (1 - p))[:, None]).T @ columns
        step = np.linalg.solve(curvature + _RIDGE * np.eye(len(weights)), gradient)
        size = 1.0
        while size > 1e-6 and cost(weights - size * step) > now:
            size /= 2
        weights = weights - size * step
        before, now = now, cost(weights)
        if before - now < 1e-10:
            break
    return weights


def _checked(scores: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool]]:
    p, right = np.asarray(scores, np.float64), np.asarray(correct, bool)
    if p.shape != right.shape or p.ndim != 1:
        raise ValueError(
            f"`scores` and `correct` must be (N,), but are {p.shape} and {right.shape} instead"
        )
    if len(p) and not (p.min() >= 0 and p.max() <= 1):
        raise ValueError("`scores` must be in [0, 1], but some are not")
    return p, right


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
