"""A small CTC probe on the frozen encoder: is the content of speech in the representation?

Rank and variance stay healthy in encoders that keep the speaker and lose the phones; a linear
head that has to spell does not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechjepa.data.batches import CachedItems
from speechjepa.data.cache import build_cache
from speechjepa.data.utterance import Utterance
from speechjepa.metrics.error_rate import error_rates
from speechjepa.models.encoder import Encoder
from speechjepa.text.normalize import TextConfig, normalize_text
from speechjepa.text.vocabulary import Vocabulary
from speechjepa.training.frames import encode_items

logger = logging.getLogger(__name__)

HELD_OUT_EVERY = 5


@dataclass(frozen=True)
class ProbeData:
    """Labelled utterances of a probe; a few minutes are enough."""

    utterances: Sequence[Utterance]
    text: TextConfig = field(default_factory=TextConfig)
    max_minutes: float = 4.0
    """More than this is left out (minutes)."""


class Probe:
    """Train a linear CTC head on frozen features and read the CER of held-out utterances.

    Every fifth utterance is held out.

    Args:
        data: Labelled utterances.
        cache_dir: Where decoded audio is kept.
        steps: Steps of Adam on the head.
        seed: Of the head.
    """

    def __init__(self, data: ProbeData, cache_dir: Path, steps: int, seed: int) -> None:
        cache = build_cache([u for u in data.utterances if u.text], cache_dir)
        texts = [normalize_text(cast(str, u.text), data.text) for u in cache.utterances]
        self.items = CachedItems(cache)
        self.vocabulary = Vocabulary.build(texts)
        self.texts = texts
        seconds = 0.0
        self.used: list[int] = []
        for i, length in enumerate(cache.lengths):
            if texts[i] and seconds <= 60.0 * data.max_minutes:
                self.used.append(i)
                seconds += float(length) / cache.sample_rate
        self.steps = steps
        self.seed = seed

    @property
    def possible(self) -> bool:
        """Whether there is an utterance to learn from and one to be tested on."""
        return len(self.used) >= 2

    def measure(self, encoder: Encoder) -> float:
        """Return the held-out CER (a fraction) of a fresh head on this encoder."""
        features = [frames.cpu() for frames in encode_items(encoder, self.items, self.used)]
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(self.seed)
            return self._train_and_test(features, 2 if encoder.hop > 320 else 1)

    def _train_and_test(self, features: list[Tensor], upsample: int) -> float:
        held_out = [i for i in range(len(features)) if i % HELD_OUT_EVERY == 0]
        training = [i for i in range(len(features)) if i % HELD_OUT_EVERY]
        size = len(self.vocabulary)
        mean = torch.cat([features[i] for i in training]).mean(dim=0)
        std = torch.cat([features[i] for i in training]).std(dim=0) + 1e-5
        head = nn.Linear(features[0].shape[1], size * upsample)
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
        labels = [torch.tensor(self.vocabulary.encode(self.texts[i])) for i in self.used]

        def logits(rows: list[int]) -> tuple[Tensor, Tensor]:
            lengths = torch.tensor([len(features[i]) * upsample for i in rows])
            padded = nn.utils.rnn.pad_sequence([features[i] for i in rows], batch_first=True)
            x = head((padded - mean) / std)
            return x.reshape(len(rows), -1, size), lengths

        for step in range(self.steps):
            generator = torch.Generator().manual_seed(step)
            picked = torch.randperm(len(training), generator=generator)[:32]
            rows = [training[int(i)] for i in picked]
            x, lengths = logits(rows)
            loss = functional.ctc_loss(
                x.log_softmax(dim=-1).transpose(0, 1),
                torch.cat([labels[i] for i in rows]),
                lengths,
                torch.tensor([len(labels[i]) for i in rows]),
                zero_infinity=True,  # utterances whose label does not fit teach nothing here
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            x, lengths = logits(held_out)
        best = x.argmax(dim=-1)
        hypotheses = [
            self.vocabulary.decode_ctc(best[row, : int(lengths[row])].tolist())
            for row in range(len(held_out))
        ]
        references = [self.texts[self.used[i]] for i in held_out]
        return error_rates(references, hypotheses).cer


def start_probe(data: ProbeData | None, cache_dir: Path, steps: int, seed: int) -> Probe | None:
    """Return a probe; None, with a warning, where the labelled utterances are too few for one."""
    if data is None:
        return None
    probe = Probe(data, cache_dir, steps, seed) if any(u.text for u in data.utterances) else None
    if probe is None or not probe.possible:
        logger.warning("no probe: it needs at least 2 labelled utterances")
        return None
    return probe
