"""Recognise which of a few transcripts each utterance says, where it is known how often each is.

A model that has heard little of a voice takes one word for another again and again, and is sure of
it, so what it teaches itself is wrong alike. How often each transcript ought to come up says
otherwise: distribution alignment, after ReMixMatch (Berthelot et al.,
https://arxiv.org/abs/1911.09785), by speaker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from speechjepa.text.vocabulary import Vocabulary

_TEMPERATURE = 2.0  # CTC's likelihoods are too sure of themselves
_ROUNDS = 200
_IMPOSSIBLE = 1e4  # nats, of a transcript that does not fit


def choose_transcripts(
    logits: Sequence[NDArray[np.float32]],
    speakers: Sequence[str | None],
    counts: Mapping[str, int],
    vocabulary: Vocabulary,
    *,
    slack: float,
) -> list[tuple[str, float]]:
    """Return for each utterance its transcript, and the log-probability of that (nats).

    Args:
        logits: (T, V) of each utterance.
        speakers: Of each; None = not known.
        counts: The transcripts that there are, and how often each is said.
        vocabulary: The symbols of the logits; it can write the transcripts.
        slack: See `align`.

    Returns:
        (transcript, log-probability) of each; ("", minus infinity) where none fits into it.
    """
    transcripts = sorted(counts)
    prior = np.array([counts[text] for text in transcripts], np.float64)
    scores = np.array([_log_likelihoods(each, transcripts, vocabulary) for each in logits])
    found: list[tuple[str, float]] = [("", -np.inf)] * len(logits)
    fits = scores.max(axis=1, initial=-np.inf) > -_IMPOSSIBLE
    for speaker in sorted(set(speakers), key=str):
        rows = [i for i, other in enumerate(speakers) if other == speaker and fits[i]]
        posterior = align(scores[rows] / _TEMPERATURE, prior / prior.sum(), slack)
        for row, probabilities in zip(rows, posterior, strict=True):
            best = int(probabilities.argmax())
            found[row] = transcripts[best], float(np.log(probabilities[best]))
    return found


def align(
    scores: NDArray[np.float64], prior: NDArray[np.float64], slack: float
) -> NDArray[np.float64]:
    """Return probabilities (N, K) of which each column's mean is about what the prior says.

    Each row of scores is raised by the same K numbers, found by turns (Sinkhorn and Knopp).

    Args:
        scores: (N, K) log-likelihoods (nats).
        prior: (K,) positive, with the sum 1.
        slack: How far a mean may be from the prior: standard deviations of a share among N draws,
            and half an utterance at least, so that a single one is what it sounds like.
    """
    scores = scores - scores.max(axis=1, keepdims=True)
    count = max(1, len(scores))
    leeway = np.maximum(slack * np.sqrt(prior * (1 - prior) / count), 0.5 / count)
    raised = np.zeros(len(prior))
    probabilities = np.zeros_like(scores)
    for _ in range(_ROUNDS if len(scores) else 0):
        weights = np.exp(scores + raised - raised.max())
        probabilities = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
        mean = np.maximum(probabilities.mean(axis=0), 1e-12)
        wanted = np.clip(mean, np.maximum(prior - leeway, 1e-12), prior + leeway)
        if (np.abs(wanted - mean) < 1e-3 * prior).all():
            break
        raised += 0.5 * np.log(wanted / mean)  # all of it would swing
    return probabilities


def _log_likelihoods(
    logits: NDArray[np.float32], transcripts: Sequence[str], vocabulary: Vocabulary
) -> NDArray[np.float64]:
    """Return (K,) what CTC gives each transcript (nats); one that does not fit gets very little."""
    encoded = [vocabulary.encode(text) for text in transcripts]
    log_probs = torch.from_numpy(logits).double().log_softmax(dim=-1)
    costs = functional.ctc_loss(
        log_probs[:, None].expand(-1, len(encoded), -1),
        torch.tensor([symbol for ids in encoded for symbol in ids]),
        torch.full((len(encoded),), len(logits)),
        torch.tensor([len(ids) for ids in encoded]),
        blank=vocabulary.blank_id,
        reduction="none",
    )
    return -costs.clamp(max=_IMPOSSIBLE).numpy()
