"""How good units are: what they say of the phones, and how many bits they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class PhoneFigures(NamedTuple):
    """How units and phones of the same frames go together, each between 0 and 1."""

    phone_purity: float
    """Share of frames that are right when each unit is read as its most frequent phone."""
    unit_purity: float
    """Share of frames that are right when each phone is read as its most frequent unit."""
    phone_information: float
    """Mutual information of phones and units over the entropy of the phones."""


def phone_figures(units: ArrayLike, phones: Sequence[str]) -> PhoneFigures:
    """Compare units with the phones that were spoken in the same frames.

    phone purity = sum_u max_p P(p, u), cluster purity = sum_p max_u P(p, u), and
    I(p; u) / H(p), as HuBERT (https://arxiv.org/abs/2106.07447, section 5.3). Measure with units
    that were fitted on other speech: with more units than frames, phone purity is 1.

    Args:
        units: (T,) whole numbers.
        phones: (T,) names.

    Raises:
        ValueError: They are not as many, or none.
    """
    joint = _joint(units, phones)  # (P, U)
    information = _entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1)) - _entropy(joint)
    entropy = _entropy(joint.sum(axis=1))
    return PhoneFigures(
        phone_purity=float(joint.max(axis=0).sum()),
        unit_purity=float(joint.max(axis=1).sum()),
        phone_information=float(information / entropy) if entropy > 0 else 0.0,
    )


def bitrate(sequences: Sequence[ArrayLike], seconds: float) -> float:
    """Return the bits per second that deduplicated units take, coded by how often each occurs.

    (L / D) sum_u -p(u) log2 p(u), L units in D seconds, as in the ZeroSpeech challenge 2019
    (https://arxiv.org/abs/1904.11469).

    Args:
        sequences: (L,) deduplicated units of each recording.
        seconds: Length of all recordings together (seconds).
    """
    if not seconds > 0:
        raise ValueError(f"`seconds` must be more than 0, but is {seconds} instead")
    joined = np.concatenate([np.asarray(sequence, np.int64) for sequence in sequences])
    _, counts = np.unique(joined, return_counts=True)
    return float(len(joined) / seconds * _entropy(counts / max(1, len(joined))) / np.log(2))


def _joint(units: ArrayLike, phones: Sequence[str]) -> NDArray[np.float64]:
    numbers = np.asarray(units)
    if numbers.ndim != 1 or len(numbers) != len(phones) or not len(phones):
        raise ValueError(
            f"`units` and `phones` must be as many, but are {numbers.shape} and {len(phones)}"
        )
    _, columns = np.unique(numbers, return_inverse=True)
    _, rows = np.unique(list(phones), return_inverse=True)
    joint = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(joint, (rows, columns), 1.0 / len(phones))
    return joint


def _entropy(probabilities: NDArray[np.float64]) -> float:
    """Return the entropy of a distribution (nats)."""
    some = probabilities[probabilities > 0]
    return float(-(some * np.log(some)).sum())
