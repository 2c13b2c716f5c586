"""ABX discrimination: do two tokens of one class lie closer than tokens of two classes?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def abx_error(
    vectors: NDArray[np.float32], classes: Sequence[str], *, max_tokens: int = 50, seed: int = 0
) -> float:
    """Return the share of triples (a, b, x) in which x lies closer to b, of another class, than to
    a, of its own; 0.5 is chance. Ties count one half.

    Distances are angular; every pair of classes counts the same. After Schatz et al., 2013
    (https://hal.science/hal-00918599); differs from it in comparing one vector per token instead
    of aligning sequences, and in ignoring the context of the token.

    Args:
        vectors: (N, D), one per token.
        classes: (N,) what each token is.
        max_tokens: Tokens drawn per class; classes with fewer than two are left out.
        seed: Of the draw.

    Raises:
        ValueError: Fewer than two classes have two tokens.
    """
    rng = np.random.default_rng(seed)
    names = np.asarray(classes)
    members = []
    for name in np.unique(names):
        places = np.flatnonzero(names == name)
        if len(places) > max_tokens:
            places = np.sort(rng.choice(places, max_tokens, replace=False))
        if len(places) > 1:
            members.append(places)
    if len(members) < 2:
        raise ValueError("ABX needs at least two classes with two tokens each")
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    errors = []
    for i, own in enumerate(members):
        near = unit[own] @ unit[own].T  # similarity of x to each a
        for j, other in enumerate(members):
            if i != j:
                far = np.sort(unit[own] @ unit[other].T, axis=1)
                errors.append(_error(near, far))
    return float(np.mean(errors))


def _error(near: NDArray[np.float32], far: NDArray[np.float32]) -> float:
    """Return the error of one ordered pair of classes from similarities (X, A) and (X, B)."""
    total = 0.0
    for x, (own, others) in enumerate(zip(near, far, strict=True)):
        own = np.delete(own, x)
        above = len(others) - np.searchsorted(others, own, side="right")
        ties = np.searchsorted(others, own, side="right") - np.searchsorted(others, own)
        total += float((above + 0.5 * ties).mean()) / len(others)
    return total / len(near)
