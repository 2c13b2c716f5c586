"""How exact are the times of words? Checked on synthetic speech whose word boundaries are known.

    python tools/benchmark_times.py --model runs/quickstart

Speaks sentences that no stage of the quickstart has seen, by voices that it has not heard; both
are those of the synthetic corpus's `test`. The engine says when each word begins and ends. The
words are timed twice: their text given (`align`), and recognised (`transcribe`; only words that are
right and stand alone in the transcript's alignment are compared). Writes results/times.json.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechjepa.audio.files import write_wav
from speechjepa.data.synthetic.acoustics import disturb_and_place
from speechjepa.data.synthetic.corpus import TEST_VOICES
from speechjepa.data.synthetic.espeak import SAMPLE_RATE, synthesise
from speechjepa.data.synthetic.text import LANGUAGES, draw_meaning, express
from speechjepa.inference.align_file import align_file
from speechjepa.inference.model import load
from speechjepa.inference.transcribe import transcribe
from speechjepa.metrics.error_rate import align
from speechjepa.workflow.record import make_record, write_json

ROOT = Path(__file__).resolve().parent.parent
FIRST_INDEX = 2_000_500_000
"""Of the meanings that are said: of the synthetic `test`, far behind what a corpus holds."""
GOAL = 40.0
"""Median error that is aimed at (ms)."""


@dataclass(frozen=True, kw_only=True)
class SpokenWord:
    """A word and when it is spoken (seconds); None where the engine does not say."""

    word: str
    start: float | None
    end: float | None


def speak(language: str, count: int, seed: int) -> Iterator[tuple[np.ndarray, list[SpokenWord]]]:
    """Yield speech (S,) at 16 kHz, with the times of its words."""
    index = FIRST_INDEX
    while count:
        index += 1
        sentence = express(draw_meaning(index, seed=seed), language)
        if sentence is None or sentence.text != sentence.spoken:
            continue  # its words could not be told from what is said
        rng = np.random.default_rng([seed, index])
        speech = synthesise(
            sentence.spoken,
            LANGUAGES[language].voice,
            voice=random.Random(index).choice(TEST_VOICES),
            rate=int(rng.integers(130, 200)),
            pitch=int(rng.integers(35, 66)),
            formant_ratio=float(rng.uniform(0.92, 1.08)),
            seed=index,
        )
        waveform, later = disturb_and_place(speech.waveform, rng, SAMPLE_RATE)
        known = {word.position: word for word in speech.words}
        words, position = [], 0
        for word in sentence.text.split(" "):
            times, behind = known.get(position), position + len(word) + 1
            # The engine reads some pairs of words as one: then the first one's end is not known.
            is_whole = behind in known or behind > len(sentence.text)
            words.append(
                SpokenWord(
                    word=word,
                    start=None if times is None else times.start + later,
                    end=None if times is None or not is_whole else times.end + later,
                )
            )
            position = behind
        yield waveform, words
        count -= 1


class Errors:
    """Signed errors of starts and ends (ms), and what must hold of every time."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.num_words = self.num_in_order = self.num_inside = 0

    def add(self, spoken: list[SpokenWord], segments: list[dict[str, Any]], length: float) -> None:
        """Compare the words that were heard with those that were said."""
        heard = [word for segment in segments for word in segment["words"]]
        before = 0.0
        for word in heard:
            self.num_words += 1
            self.num_in_order += before <= word["start"] <= word["end"]
            self.num_inside += 0 <= word["start"] and word["end"] <= length
            before = word["end"]
        aligned = align([word.word for word in spoken], [word["word"] for word in heard])
        left, right = iter(spoken), iter(heard)
        for operation, _, _ in aligned:
            said = next(left) if operation != "insert" else None
            found = next(right) if operation != "delete" else None
            if operation != "equal" or said is None or found is None:
                continue
            if said.start is not None:
                self.starts.append(1000 * (found["start"] - said.start))
            if said.end is not None:
                self.ends.append(1000 * (found["end"] - said.end))

    def summary(self) -> dict[str, Any]:
        """Return the figures of this way of timing."""
        both = np.abs([*self.starts, *self.ends])
        return {
            "median_ms": round(float(np.median(both)), 1),
            "mean_ms": round(float(both.mean()), 1),
            "p95_ms": round(float(np.percentile(both, 95)), 1),
            **_side("start", self.starts),
            **_side("end", self.ends),
            "words_heard": self.num_words,
            "share_monotone": self.num_in_order / max(1, self.num_words),
            "share_inside": self.num_inside / max(1, self.num_words),
        }


def _side(name: str, errors: list[float]) -> dict[str, float]:
    return {
        f"{name}_median_ms": round(float(np.median(np.abs(errors))), 1),
        f"{name}_p95_ms": round(float(np.percentile(np.abs(errors), 95)), 1),
        f"{name}_bias_ms": round(float(np.median(errors)), 1),
        f"num_{name}s": len(errors),
    }


def main() -> None:
    """Speak, time, compare, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--language", default="es", help="of the synthetic corpus, the model's")
    parser.add_argument("--utterances", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "times.json")
    args = parser.parse_args()
    model = load(args.model)
    given, recognised = Errors(), Errors()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        for waveform, words in speak(args.language, args.utterances, args.seed):
            write_wav(path, waveform)
            length = len(waveform) / SAMPLE_RATE
            text = " ".join(word.word for word in words)
            given.add(words, align_file(model, path, text)["segments"], length)
            heard = transcribe(model, path, word_timestamps=True)
            recognised.add(words, heard["segments"], length)
    found = {"align": given.summary(), "transcribe": recognised.summary()}
    for name, figures in found.items():
        print(name, figures)
    record = make_record(
        what="times of words of synthetic speech: median absolute error of starts and ends, the "
        "text given",
        figure=found["align"]["median_ms"],
        unit="ms",
        command=f"python tools/benchmark_times.py --model runs/{args.model.name} "
        f"--seed {args.seed}",
        model=model.bundle.results,
        labels_minutes=model.bundle.training.get("finetune", {}).get("label_minutes"),
        seed=args.seed,
        goal_ms=GOAL,
        language=args.language,
        utterances=args.utterances,
        frame_ms=1000 * model.frame_seconds,
        **found,
    )
    write_json(args.output, record)


if __name__ == "__main__":
    main()
