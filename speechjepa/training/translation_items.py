"""Parallel speech as training a translator needs it: source audio, target tokens, texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from speechjepa.audio.augment import fewest_samples
from speechjepa.data.batches import CachedItems
from speechjepa.data.cache import AudioCache, build_cache, write_skipped
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError
from speechjepa.models.speech_to_units import SpeechTranslationModel
from speechjepa.objectives.ctc import frames_needed
from speechjepa.text.vocabulary import Vocabulary
from speechjepa.training.doctor import CtcDoctor


@dataclass(frozen=True, kw_only=True)
class Example:
    """An utterance and the tokens of its translation."""

    source: Utterance
    tokens: tuple[int, ...]
    """(L,) token ids, none of them 0."""
    source_text: str = ""
    """Normalised transcript; empty = none."""
    text: str = ""
    """Normalised text of the target; empty = none."""


class TranslationItems:
    """Cached source utterances with the token ids that they become.

    Args:
        cache: Decoded source audio.
        examples: By the id of their source.
        source_vocabulary: Of the transcripts; None = they are not used.
        text_vocabulary: Of the target's text; None = it is not used.
    """

    def __init__(
        self,
        cache: AudioCache,
        examples: dict[str, Example],
        source_vocabulary: Vocabulary | None,
        text_vocabulary: Vocabulary | None,
    ) -> None:
        self.examples = [examples[u.id] for u in cache.utterances]
        self.token_ids = [torch.tensor(e.tokens, dtype=torch.long) for e in self.examples]
        self.source_ids = [_encoded(e.source_text, source_vocabulary) for e in self.examples]
        self.text_ids = [_encoded(e.text, text_vocabulary) for e in self.examples]
        self.items = CachedItems(cache)
        self.minutes = cache.seconds / 60

    def keep(self, places: Sequence[int]) -> None:
        """Leave out all items but these."""
        self.items.pieces = [self.items.pieces[i] for i in places]
        self.items.lengths = self.items.lengths[list(places)]
        for name in ("examples", "token_ids", "source_ids", "text_ids"):
            values = getattr(self, name)
            setattr(self, name, [values[i] for i in places])


def _encoded(text: str, vocabulary: Vocabulary | None) -> Tensor:
    if vocabulary is None:
        return torch.zeros(0, dtype=torch.long)
    return torch.tensor(vocabulary.encode(text, unknown="drop"), dtype=torch.long)


def read_examples(
    examples: Sequence[Example],
    cache_dir: Path,
    run_dir: Path,
    source_vocabulary: Vocabulary | None,
    text_vocabulary: Vocabulary | None,
) -> TranslationItems:
    """Decode the source audio of examples; what cannot be read is listed in `skipped.jsonl`.

    Raises:
        DataError: There are no examples, or two of one id, or none can be read.
    """
    if not examples:
        raise DataError("there are no pairs to train a translator on")
    by_id = {example.source.id: example for example in examples}
    if len(by_id) < len(examples):
        raise DataError("two pairs have a source of one id; ids must be unique")
    cache = build_cache([example.source for example in examples], cache_dir)
    write_skipped(cache.skipped, run_dir / "skipped.jsonl")
    return TranslationItems(cache, by_id, source_vocabulary, text_vocabulary)


def leave_out_misfits(
    data: TranslationItems,
    model: SpeechTranslationModel,
    doctor: CtcDoctor,
    speed_perturbation: float,
) -> None:
    """Drop pairs that CTC cannot write in their frames at the fastest speed, and name them."""
    lengths = torch.from_numpy(data.items.lengths)
    frames = model.output_lengths(fewest_samples(lengths, speed_perturbation)).tolist()
    kept = []
    for place, (ids, has) in enumerate(zip(data.token_ids, frames, strict=True)):
        needed = frames_needed(ids) if model.translator.config.head == "ctc" else len(ids)
        if 0 < needed and (needed <= has or model.translator.config.head != "ctc"):
            kept.append(place)
        else:
            doctor.misfit(data.examples[place].source, needed, has)
    if not kept:
        raise DataError(
            "no translation fits the frames of its source; raise translator.upsample, or check "
            "that sources and targets belong together"
        )
    data.keep(kept)
