"""Recognise which of a few transcripts each utterance says, where all are said about equally.

A model that has heard little of a voice takes one word for another again and again, and is sure of
it, so what it teaches itself is wrong alike. How often each transcript ought to come up says
otherwise: distribution alignment, after ReMixMatch (Berthelot et al.,
https://arxiv.org/abs/1911.09785), by speaker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from speechjepa.text.vocabulary import Vocabulary

_TEMPERATURE = 2.0  # CTC's likelihoods are too sure of themselves
_FEW = 4  # utterances per transcript: speakers with fewer are taken together
_ROUNDS = 200


def choose_transcripts(
    logits: Sequence[NDArray[np.float32]],
    speakers: Sequence[str | None],
    counts: Mapping[str, int],
    vocabulary: Vocabulary,
) -> list[tuple[str, float]]:
    """Return for each utterance its transcript, and the log-probability of that (nats).

    Args:
        logits: (T, V) of each utterance.
        speakers: Of each; None = not known.
        counts: The transcripts that there are, and how often each is said.
        vocabulary: The symbols of the logits; it can write the transcripts.
    """
    transcripts = sorted(counts)
    prior = np.array([counts[text] for text in transcripts], np.float64)
    scores = np.array([_log_likelihoods(each, transcripts, vocabulary) for each in logits])
    found: list[tuple[str, float]] = [("", 0.0)] * len(logits)
    for rows in _groups(speakers, _FEW * len(transcripts)):
        posterior = align(scores[rows] / _TEMPERATURE, prior / prior.sum())
        for row, probabilities in zip(rows, posterior, strict=True):
            best = int(probabilities.argmax())
            found[row] = transcripts[best], float(np.log(probabilities[best]))
    return found


def align(scores: NDArray[np.float64], prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities (N, K) of which each column's mean is what the prior says.

    Each row of scores is raised by the same K numbers, found by turns (Sinkhorn and Knopp).

    Args:
        scores: (N, K) log-likelihoods (nats).
        prior: (K,) positive, with the sum 1.
    """
    scores = scores - scores.max(axis=1, keepdims=True)
    raised = np.zeros(len(prior))
    for _ in range(_ROUNDS):
        weights = np.exp(scores + raised - raised.max())
        probabilities = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
        change = np.log(prior) - np.log(np.maximum(probabilities.mean(axis=0), 1e-12))
        if np.abs(change).max() < 1e-3:
            break
        raised += 0.5 * change  # all of it would swing
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
    return -costs.clamp(max=1e4).numpy()


def _groups(speakers: Sequence[str | None], least: int) -> list[NDArray[np.int64]]:
    """Return the rows of each speaker, and together those of speakers who say little."""
    counts = Counter(speakers)
    names = [s if s is not None and counts[s] >= least else None for s in speakers]
    return [
        np.array([row for row, other in enumerate(names) if other == name])
        for name in sorted(set(names), key=str)
    ]
