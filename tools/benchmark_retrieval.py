"""How well known utterances are found again by sound: prompts of people, by encoder and layer.

    python tools/benchmark_retrieval.py --data-root DATA -o results/retrieval.json

Telephone prompts, English and Spanish, joined by `key`. Each prompt of dev is answered with the
translation of the nearest of train, whose keys are others; each of train, of which there are more,
with that of the nearest among the others (the shipped encoder learnt phones from the transcripts of
train, so that only dev says what it is worth). Answers are scored against the true translations.
Beside `stretches`, which is `speechjepa.inference.retrieval`: `means`, the cosine of the whitened
means of an utterance's four quarters; the nearest by its true text, and the answer that is nearest
to the true one (by edits), which are not heard: what is left to gain.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rapidfuzz import fuzz, process
from torch import Tensor

from speechjepa.data.pairs import Pair, pair_utterances
from speechjepa.data.readers import read_corpus
from speechjepa.inference.model import SpeechModel
from speechjepa.inference.recognise import read_utterance
from speechjepa.inference.retrieval import MAX_CHANNELS, Known, Retrieval, steps_of
from speechjepa.inference.units import extract_frames, frame_rate
from speechjepa.metrics.translation import bleu, chrf
from speechjepa.models.shipped import shipped_version
from speechjepa.text.normalize import TextConfig, normalize_text
from speechjepa.workflow.record import make_record, write_json

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # run as a program
    sys.path.insert(0, str(ROOT))

from tools.benchmark_units import encoders  # noqa: E402

DIRECTIONS = (("en", "es"), ("es", "en"))
PARTS = 4
CHANNELS = {"means": 128, "stretches": MAX_CHANNELS}
"""128 is what the means had that were used before."""
SEED = 0
Likeness = NDArray[np.float32]


class Prompts:
    """Pairs of one direction, those of train first, and what their answers are worth."""

    def __init__(self, data_root: Path, source: str, target: str) -> None:
        parts: list[list[Pair]] = [
            pair_utterances(
                read_corpus(str(data_root / f"prompts-{source}" / split)),
                language=target,
                data_root=data_root,
            )
            for split in ("train", "dev")
        ]
        self.pairs = parts[0] + parts[1]
        self.num_known = len(parts[0])
        config = TextConfig()
        self.sources = [normalize_text(pair.source.text or "", config) for pair in self.pairs]
        self.targets = [normalize_text(pair.text or "", config) for pair in self.pairs]
        self.by_source, self.by_target = (
            np.asarray(process.cdist(texts, texts[: self.num_known], scorer=fuzz.ratio))
            for texts in (self.sources, self.targets)
        )

    def scores(self, likeness: Likeness) -> dict[str, float]:
        """Return what answers by a likeness (pairs, known) are worth.

        `as_by_text`: the share of them that are those of the nearest by its true text.
        """
        own = np.eye(*likeness.shape) > 0  # nobody is an answer to itself
        chosen = np.where(own, -np.inf, likeness).argmax(axis=1)
        by_text = np.where(own, -np.inf, self.by_source).argmax(axis=1)
        found: dict[str, float] = {}
        for split, part in (("dev", slice(self.num_known, None)), ("train", slice(self.num_known))):
            true, answers = self.targets[part], [self.targets[place] for place in chosen[part]]
            found[f"{split}_chrf"] = round(chrf(true, answers).value, 2)
            found[f"{split}_bleu"] = round(bleu(true, answers).value, 2)
            found[f"{split}_as_by_text"] = round(float((chosen == by_text)[part].mean()), 3)
        return found


def main() -> None:
    """Measure every encoder, and write one JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--encoders", nargs="*", default=[], metavar="NAME=MODEL")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    models = encoders(args.encoders)
    rows: list[dict[str, Any]] = []
    for source, target in DIRECTIONS:
        prompts = Prompts(args.data_root, source, target)
        direction = {"direction": f"{source}-{target}"}
        rows.append({**direction, "how": "nearest text", **prompts.scores(prompts.by_source)})
        rows.append({**direction, "how": "nearest answer", **prompts.scores(prompts.by_target)})
        for name, model in models.items():
            for layer, frames in frames_of(model, name, prompts.pairs).items():
                found = likenesses(frames, frame_rate(model), prompts.num_known)
                for how, likeness in found.items():
                    row = {**direction, "how": how, "encoder": name, "layer": layer}
                    rows.append(row | prompts.scores(likeness))
                    print(*(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    if args.output is None:
        return
    middle = models["shipped"].encoder.num_layers // 2
    ours = {"direction": "en-es", "how": "stretches", "encoder": "shipped", "layer": middle}
    record = make_record(
        what="retrieval: chrF of the nearest known telephone prompt, English into Spanish, dev",
        figure=next(row["dev_chrf"] for row in rows if row.items() >= ours.items()),
        unit="chrF",
        command="python tools/benchmark_retrieval.py --data-root DATA -o results/retrieval.json",
        seed=SEED,
        shipped_encoder=shipped_version(),
        rows=rows,
    )
    write_json(args.output, record)


def frames_of(
    model: SpeechModel, name: str, pairs: Sequence[Pair]
) -> Mapping[int | str, list[Tensor]]:
    """Return the frames (T, D) of every source, by layer."""
    found: dict[int | str, list[Tensor]] = {}
    for pair in pairs:
        waveform = torch.from_numpy(read_utterance(pair.source, model.sample_rate))
        if name == "log-mel":
            found.setdefault("mel", []).append(extract_frames(model, "mel", waveform))
            continue
        layers = model.encode(waveform[None], return_layers=True).layers
        assert layers is not None
        for layer, frames in enumerate(layers):
            found.setdefault(layer, []).append(frames[0])
    return found


def likenesses(frames: Sequence[Tensor], rate: float, num_known: int) -> dict[str, Likeness]:
    """Return how like every utterance is to every known one (N, known), by how that is found."""
    steps = [steps_of(one, rate) for one in frames]
    found = {"means": [_quarters(one) for one in steps], "stretches": steps}
    known = [Known(id=str(place)) for place in range(num_known)]
    fitted = {
        how: Retrieval.fit(known, heard[:num_known], 0, channels=CHANNELS[how])
        for how, heard in found.items()
    }
    return {
        how: np.stack([fitted[how].likeness(one) for one in heard]) for how, heard in found.items()
    }


def _quarters(steps: Tensor) -> Tensor:
    """Return the means of an utterance's parts as one step (1, PARTS * D)."""
    enough = torch.cat([steps, steps[-1:].expand(max(0, PARTS - len(steps)), -1)])
    return torch.cat([part.mean(dim=0) for part in enough.tensor_split(PARTS)])[None]


if __name__ == "__main__":
    main()
