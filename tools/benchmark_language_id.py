"""Can languages be told apart by what an encoder makes of them?

    python tools/benchmark_language_id.py --synthetic DATA/quickstart/train --data-root DATA

Twice: on synthetic speech of six languages, where every voice speaks every language, so that a
voice says nothing, heard by voices that were not learnt from; and on recorded corpora, learnt from
some speakers and heard by others. Where a corpus has one speaker (the telephone prompts) other
recordings of the same voice are heard: that measures the voice and the line as much as the
language, and is told apart in the result. Writes results/language_id.json.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechjepa.data.readers import read_corpus
from speechjepa.data.utterance import Utterance
from speechjepa.inference.model import SpeechModel, load
from speechjepa.inference.recognise import read_utterance
from speechjepa.inference.spoken_language import PIECE_SECONDS, learn_languages, pooled_utterance
from speechjepa.metrics.calibration import expected_calibration_error
from speechjepa.models.shipped import shipped_version
from speechjepa.workflow.record import make_record, write_json

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ("mboshi", "cherokee", "prompts-en", "prompts-es", "prompts-pt", "digits")
SHORTEST = 1.0
"""Shorter utterances are single words; they are left out (seconds)."""


def divide(
    utterances: Sequence[Utterance], per_side: int, seed: int
) -> tuple[list[Utterance], list[Utterance], bool]:
    """Return what to learn from, what to hear, and whether their speakers differ.

    Every third speaker is heard; every third recording where there is one speaker.
    """
    long = [u for u in utterances if (u.duration or 0.0) >= SHORTEST]
    random.Random(seed).shuffle(long)
    speakers = sorted({u.speaker or "" for u in long})
    if len(speakers) > 1:
        heard = set(speakers[1::3])
        sides = [
            [u for u in long if ((u.speaker or "") in heard) is side] for side in (False, True)
        ]
    else:
        sides = [[u for i, u in enumerate(long) if (i % 3 == 1) is side] for side in (False, True)]
    return sides[0][: 2 * per_side], sides[1][:per_side], len(speakers) > 1


def measure(
    model: SpeechModel, groups: dict[str, list[Utterance]], per_side: int, seed: int
) -> dict[str, Any]:
    """Learn from one side of every group and hear the other."""
    learnt: list[Utterance] = []
    heard: list[tuple[str, bool, Utterance]] = []
    for name, utterances in groups.items():
        first, second, others = divide(utterances, per_side, seed)
        learnt += first
        heard += [(name, others, utterance) for utterance in second]
    classifier, _ = learn_languages(model, learnt, seed=seed)
    rows: dict[str, list[bool]] = defaultdict(list)
    apart: dict[bool, list[bool]] = {True: [], False: []}
    scores: list[float] = []
    for name, others, utterance in heard:
        waveform = read_utterance(utterance, model.sample_rate)
        pooled = pooled_utterance(model, waveform[: round(PIECE_SECONDS * model.sample_rate)])
        chances = classifier.probabilities(pooled[None])[0]
        found = classifier.languages[int(chances.argmax())]
        rows[name].append(found == utterance.language)
        apart[others].append(found == utterance.language)
        scores.append(float(chances.max()))
    right = [*apart[True], *apart[False]]
    in_order = [one for name in groups for one in rows[name]]
    return {
        "languages": list(classifier.languages),
        "learnt_from": len(learnt),
        "heard": len(right),
        "accuracy": sum(right) / len(right),
        "accuracy_other_speakers": sum(apart[True]) / len(apart[True]) if apart[True] else None,
        "accuracy_same_speaker": sum(apart[False]) / len(apart[False]) if apart[False] else None,
        "ece": expected_calibration_error(scores, in_order),
        "by_group": {name: sum(one) / len(one) for name, one in rows.items() if one},
    }


def main() -> None:
    """Measure both, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("shipped"), help="its encoder hears")
    parser.add_argument("--synthetic", type=Path, required=True, help="several languages, voices")
    parser.add_argument("--data-root", type=Path, required=True, help="of the recorded corpora")
    parser.add_argument("--utterances", type=int, default=40, help="to hear, of each language")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "language_id.json")
    args = parser.parse_args()
    model = load(args.model)
    synthetic: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in read_corpus(str(args.synthetic)):
        synthetic[utterance.language or ""].append(utterance)
    recorded = {
        name: [u for u in read_corpus(str(args.data_root / name / "train")) if u.language]
        for name in RECORDED
    }
    found = {
        "synthetic": measure(model, synthetic, args.utterances, args.seed),
        "recorded": measure(model, recorded, args.utterances, args.seed),
    }
    for name, figures in found.items():
        print(name, figures)
    record = make_record(
        what="languages told apart: six synthetic ones, by voices that were not learnt from and "
        "that speak all of them, one utterance each",
        figure=round(100 * found["synthetic"]["accuracy"], 1),
        unit="% right",
        command="python tools/benchmark_language_id.py --synthetic DATA/quickstart/train "
        "--data-root DATA",
        seed=args.seed,
        model=args.model.name,
        shipped_encoder=shipped_version() if str(args.model) == "shipped" else None,
        **found,
    )
    write_json(args.output, record)


if __name__ == "__main__":
    main()
