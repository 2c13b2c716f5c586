"""Labelled utterances as fine-tuning needs them: audio, normalised transcripts, token ids."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from speechjepa.audio.augment import fewest_samples
from speechjepa.data.batches import BatchPlan, CachedItems, collate
from speechjepa.data.cache import AudioCache, build_cache, write_skipped
from speechjepa.data.utterance import RECOGNISED, Utterance
from speechjepa.errors import DataError
from speechjepa.metrics.error_rate import ErrorRates, error_rates
from speechjepa.models.ctc import CtcModel
from speechjepa.nn.transformer import Chunks
from speechjepa.objectives.ctc import frames_needed
from speechjepa.text.normalize import TextConfig, normalize_text
from speechjepa.text.vocabulary import Vocabulary
from speechjepa.training.doctor import CtcDoctor

logger = logging.getLogger(__name__)


class LabelledItems:
    """Cached utterances with their normalised transcripts and token ids.

    Args:
        cache: Decoded audio.
        text: Normalisation.
        vocabulary: Given for dev data; None = built from these transcripts.
    """

    def __init__(
        self, cache: AudioCache, text: TextConfig, vocabulary: Vocabulary | None = None
    ) -> None:
        self.texts = [transcript(u, text) for u in cache.utterances]
        self.utterances = cache.utterances
        self.vocabulary = Vocabulary.build(self.texts) if vocabulary is None else vocabulary
        self.token_ids = [
            torch.tensor(self.vocabulary.encode(t, unknown="drop"), dtype=torch.long)
            for t in self.texts
        ]
        self.items = CachedItems(cache)
        self.minutes = cache.seconds / 60


def transcript(utterance: Utterance, text: TextConfig) -> str:
    """Return the normalised transcript; "" where there is none.

    What a model wrote is normalised already: replacements are applied once.
    """
    written = utterance.text or ""
    return written if RECOGNISED in utterance.extra else normalize_text(written, text)


def read_labelled(
    labelled: Sequence[Utterance],
    dev: Sequence[Utterance],
    text: TextConfig,
    cache_dir: Path,
    run_dir: Path,
) -> tuple[LabelledItems, LabelledItems | None]:
    """Decode labelled training and dev utterances; dev is None when nothing of it is labelled."""
    cache = build_cache(labelled, cache_dir)
    write_skipped(cache.skipped, run_dir / "skipped.jsonl")
    data = LabelledItems(cache, text)
    heard = [u for u in dev if transcript(u, text)]
    if not heard:
        logger.warning("there is no labelled dev data: the last step is kept, not the best one")
        return data, None
    dev_cache = build_cache(heard, cache_dir)
    write_skipped(dev_cache.skipped, run_dir / "skipped.jsonl")
    return data, LabelledItems(dev_cache, text, data.vocabulary)


def leave_out_misfits(
    data: LabelledItems, model: CtcModel, doctor: CtcDoctor, speed_perturbation: float
) -> None:
    """Drop utterances whose label needs more frames than they have, and name them.

    Args:
        data: Loses them.
        model: Says how many frames there are.
        doctor: Is told.
        speed_perturbation: The fastest speed leaves fewer frames, and the label must fit them too.
    """
    lengths = torch.from_numpy(data.items.lengths)
    frames = model.output_lengths(fewest_samples(lengths, speed_perturbation)).tolist()
    needed = [frames_needed(ids) for ids in data.token_ids]
    kept = [i for i in range(len(frames)) if 0 < needed[i] <= frames[i]]
    for i in sorted(set(range(len(frames))) - set(kept)):
        doctor.misfit(data.utterances[i], needed[i], frames[i])
    if not kept:
        raise DataError("no transcript fits the frames of its audio: is it the right audio?")
    data.items.pieces = [data.items.pieces[i] for i in kept]
    data.items.lengths = data.items.lengths[kept]
    for name in ("texts", "utterances", "token_ids"):
        values = getattr(data, name)
        setattr(data, name, [values[i] for i in kept])


@torch.no_grad()
def greedy_error_rates(
    model: CtcModel, data: LabelledItems, most: int, chunks: Chunks | None = None
) -> ErrorRates:
    """Return error rates of greedy decoding on at most `most` utterances, evenly spaced.

    With `chunks`, each frame has heard no more than it would on a stream.
    """
    device = next(model.parameters()).device
    used = list(range(0, len(data.items), max(1, -(-len(data.items) // most))))
    hypotheses = [""] * len(used)
    for rows in BatchPlan(data.items.lengths[used], 120.0).epoch(0):
        batch = collate([data.items[(used[r], 0)] for r in rows]).to(device)
        if chunks is None:
            logits, lengths = model(batch.waveform, batch.lengths)
        else:
            logits, lengths = model.in_chunks(batch.waveform, batch.lengths, chunks)
        best = logits.argmax(dim=-1).cpu()
        for row, place in enumerate(rows):
            path = best[row, : int(lengths[row])].tolist()
            hypotheses[place] = data.vocabulary.decode_ctc(path)
    return error_rates([data.texts[i] for i in used], hypotheses)
