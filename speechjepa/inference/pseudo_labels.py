"""Self-training: a model's own transcripts of unlabelled speech become labels of the next one.

Kahn et al., Self-Training for End-to-End Speech Recognition, https://arxiv.org/abs/1909.09116;
with wav2vec 2.0 and minutes of labels: Xu et al., https://arxiv.org/abs/2010.11430.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from speechjepa.data.durations import seconds_of, with_duration
from speechjepa.data.findings import number
from speechjepa.data.utterance import RECOGNISED, Utterance
from speechjepa.errors import AudioError, ConfigError, DataError
from speechjepa.inference.closed_set import choose_transcripts
from speechjepa.inference.long_recordings import LONG_SECONDS, LongTranscriber, cut_at_pauses
from speechjepa.inference.recognise import recognise
from speechjepa.inference.tuning import beam_texts, greedy_texts
from speechjepa.progress import track

logger = logging.getLogger(__name__)

MIN_SECONDS = 0.1
"""Shorter ones are left out: they hold no word (a digit may take 0.15 s)."""
AT_ONCE = 2000
"""Utterances whose logits are held in memory together."""


@dataclass(frozen=True, kw_only=True)
class SelfTrainingConfig:
    """How a model teaches the next one."""

    rounds: int = 1
    """How often: each round's teacher is the model of the round before."""
    keep: float = 0.8
    """Share of the recognised recordings that become labels, the surest first."""
    label_share: float = 0.2
    """Share of an epoch, in seconds, that the true labels make up at least: they are repeated."""
    max_steps: int | None = None
    """Optimizer steps of each round; null = those of fine-tuning."""
    refine_steps: int | None = None
    """Optimizer steps of one more round, which goes on from the model of the round before where the
    others start from the beginning; null = there is none."""
    refine_learning_rate: float = 5e-4
    """Peak learning rate of that round."""
    closed_set: bool = False
    """Whether every recording says one of the transcripts of the labels, such as a command, and
    each speaker says each about as often as the labels do. What is heard is then one of them, and
    about as often."""
    closed_set_slack: float = 2.0
    """How far from that a speaker may be, in standard deviations of what chance does; 0 = each
    says each exactly as often, as where a list is read out."""

    def __post_init__(self) -> None:
        for name in ("rounds", "refine_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"`{name}` must be at least 1, but is {value} instead")
        if not self.refine_learning_rate > 0:
            raise ConfigError(
                "`refine_learning_rate` must be more than 0, "
                f"but is {self.refine_learning_rate} instead"
            )
        if not 0 <= self.closed_set_slack < math.inf:
            raise ConfigError(
                "`self_training.closed_set_slack` must be at least 0, "
                f"but is {self.closed_set_slack} instead"
            )
        for name, value in (("keep", self.keep), ("label_share", self.label_share)):
            if not 0 < value <= 1 or (name == "label_share" and value == 1):
                raise ConfigError(
                    f"`self_training.{name}` must be more than 0 and at most 1 "
                    f"(`label_share` less than 1), but is {value} instead"
                )


@dataclass(frozen=True, kw_only=True)
class PseudoLabelled:
    """An unlabelled utterance, what was recognised in it, and how sure the model is."""

    utterance: Utterance
    """With the recognised text as its transcript."""
    confidence: float
    """Mean log-probability (nats) of the frames that are not blank, or of a closed set that of the
    transcript; at most 0."""


def pseudo_label(
    model: LongTranscriber,
    unlabelled: Sequence[Utterance],
    *,
    batch_seconds: float = 120.0,
    closed_set: Mapping[str, int] | None = None,
    slack: float = 2.0,
) -> list[PseudoLabelled]:
    """Transcribe utterances, with the language model where the model has one, the surest first.

    Recordings that are longer than `LONG_SECONDS` become the utterances that `cut_at_pauses` finds
    in them. Those in which nothing is recognised are left out, and those that cannot be read, which
    a warning names.

    Args:
        model: A fine-tuned model, the teacher.
        unlabelled: Utterances; transcripts that they have are not looked at.
        batch_seconds: Audio in one batch, padding included (seconds).
        closed_set: The only transcripts that there are, as the model writes them, and how often
            each is said; None = whatever the model hears. Long recordings are left out, and those
            that are too short for any of them.
        slack: How closely the transcripts come up so often, see `SelfTrainingConfig`.
    """
    unread: list[AudioError] = []
    utterances, recordings = [], []
    for utterance in unlabelled:
        try:
            timed = with_duration(utterance)
        except AudioError as error:
            unread.append(error)
            continue
        if (timed.duration or 0.0) > LONG_SECONDS:
            recordings.append(replace(timed, text=None))
        elif (timed.duration or 0.0) >= MIN_SECONDS:
            # "" is a transcript for `recognise`, which skips those without one.
            utterances.append(replace(timed, text=""))
    labelled: list[PseudoLabelled] = []
    at_once = AT_ONCE if closed_set is None else max(1, len(utterances))
    for start in range(0, len(utterances), at_once):
        found = recognise(model, utterances[start : start + at_once], batch_seconds=batch_seconds)
        if closed_set is None:
            labelled += _labelled(model, found.utterances, found.logits)
        else:
            labelled += _chosen(model, found.utterances, found.logits, closed_set, slack)
        unread += [AudioError(skipped.audio_path, skipped.reason) for skipped in found.skipped]
    if closed_set is not None and recordings:
        logger.warning(
            "self-training: left out, too long to be one of the transcripts (more than %.0f s): %s",
            LONG_SECONDS,
            number(len(recordings), "recording"),
        )
        recordings = []
    for recording in track(recordings, "transcribing long recordings", len(recordings)):
        pieces = []
        try:
            for piece in cut_at_pauses(model, recording, batch_seconds=batch_seconds):
                pieces.append(piece)
        except AudioError as error:  # what comes before the damage was heard
            unread.append(error)
        fitting = [piece for piece in pieces if (piece[0].duration or 0.0) >= MIN_SECONDS]
        labelled += _labelled(model, [p[0] for p in fitting], [p[1] for p in fitting])
    if unread:
        logger.warning(
            "self-training: %s cannot be read to the end; the first: %s",
            number(len(unread), "recording"),
            unread[0],
        )
    return sorted(labelled, key=lambda item: -item.confidence)


def _labelled(
    model: LongTranscriber, utterances: Sequence[Utterance], logits: Sequence[NDArray[np.float32]]
) -> list[PseudoLabelled]:
    """Return what is written in utterances with these logits, (T, V) each; silent ones are not."""
    search = model.beam_search
    if search is None:
        texts = greedy_texts(logits, model.vocabulary)
    else:
        texts = beam_texts(logits, search)
    return [
        _as_label(utterance, text, confidence(scores, model.vocabulary.blank_id))
        for utterance, scores, text in zip(utterances, logits, texts, strict=True)
        if text.strip()
    ]


def _chosen(
    model: LongTranscriber,
    utterances: Sequence[Utterance],
    logits: Sequence[NDArray[np.float32]],
    closed_set: Mapping[str, int],
    slack: float,
) -> list[PseudoLabelled]:
    """Return which of the transcripts each utterance says; silent ones say none."""
    heard = [
        (utterance, scores)
        for utterance, scores in zip(utterances, logits, strict=True)
        if (scores.argmax(axis=1) != model.vocabulary.blank_id).any()
    ]
    if not heard:
        return []
    speakers = [utterance.speaker for utterance, _ in heard]
    found = choose_transcripts(
        [scores for _, scores in heard], speakers, closed_set, model.vocabulary, slack=slack
    )
    return [
        _as_label(utterance, text, sureness)
        for (utterance, _), (text, sureness) in zip(heard, found, strict=True)
        if text
    ]


def _as_label(utterance: Utterance, text: str, sureness: float) -> PseudoLabelled:
    return PseudoLabelled(
        utterance=replace(utterance, text=text, extra={**utterance.extra, RECOGNISED: True}),
        confidence=sureness,
    )


def confidence(logits: NDArray[np.float32], blank_id: int) -> float:
    """Return the mean log-probability (nats) of the best symbol where that is not the blank.

    Args:
        logits: (T, V) unnormalised scores.
        blank_id: Column of the blank.

    Returns:
        At most 0; minus infinity where every frame is blank.
    """
    log_probs, best = torch.from_numpy(logits).float().log_softmax(dim=-1).max(dim=-1)  # (T,), (T,)
    spoken = best != blank_id
    return float(log_probs[spoken].mean()) if bool(spoken.any()) else -math.inf


def training_set(
    labelled: Sequence[Utterance], recognised: Sequence[PseudoLabelled], config: SelfTrainingConfig
) -> list[Utterance]:
    """Return what the next model is trained on: the labels, repeated, and the surest transcripts.

    Args:
        labelled: Utterances with true transcripts.
        recognised: From `pseudo_label`, the surest first.
        config: How much of it is kept, and how much of an epoch the true labels are.

    Raises:
        DataError: Nothing was recognised.
    """
    kept = [item.utterance for item in recognised[: math.ceil(config.keep * len(recognised))]]
    if not kept:
        raise DataError(
            "self-training needs recordings beside the labelled ones in which the model hears "
            "something; add recordings without transcripts, or leave `self_training` out"
        )
    seconds = [sum(seconds_of(u) for u in part) for part in (labelled, kept)]
    wanted = config.label_share / (1.0 - config.label_share) * seconds[1]
    times = max(1, round(wanted / seconds[0])) if seconds[0] else 1
    repeated = [
        replace(utterance, id=f"{utterance.id}#{turn}" if turn else utterance.id)
        for turn in range(times)
        for utterance in labelled
    ]
    logger.info(
        "self-training: %.1f min of recognised speech, and %.1f min of labels %d times",
        seconds[1] / 60,
        seconds[0] / 60,
        times,
    )
    return repeated + kept
