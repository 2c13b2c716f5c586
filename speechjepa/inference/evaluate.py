"""How good a model is on transcribed speech: error rates with intervals, and every prediction."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechjepa.data.readers.common import as_text
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError
from speechjepa.inference.confidence import hear_words, measure_confidence, stored_map
from speechjepa.inference.language_model import DECODER_FILE, DevSet, read_decoder
from speechjepa.inference.recognise import CtcTranscriber, Recognised, Skipped, recognise
from speechjepa.inference.search import BeamSearch
from speechjepa.inference.tuning import beam_texts, greedy_texts
from speechjepa.metrics.error_rate import EditCounts, ErrorRates, bootstrap_interval, error_rates
from speechjepa.progress import track
from speechjepa.text.vocabulary import Vocabulary

FILES = ("results.json", "predictions.jsonl")
"""What an evaluation writes into a folder."""
DURATION_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Where the durations of `by_duration` are divided (seconds)."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What was said and what was recognised in one utterance."""

    id: str
    audio_path: str
    start: float
    """Seconds into the file."""
    duration: float
    """Seconds."""
    speaker: str | None
    reference: str
    """Normalised by the model's text settings."""
    hypothesis: str
    """Best path."""
    hypothesis_lm: str | None = None
    """With the language model, where there is one."""
    cer: float = 0.0
    cer_lm: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Error rates of a model on a set of utterances."""

    results: dict[str, Any]
    """The content of results.json."""
    predictions: list[Prediction]
    skipped: list[Skipped]

    @property
    def cer(self) -> float:
        """Character error rate of the best path (fraction)."""
        return float(self.results["cer"])

    @property
    def wer(self) -> float:
        """Word error rate of the best path (fraction)."""
        return float(self.results["wer"])

    @property
    def cer_lm(self) -> float | None:
        """Character error rate with the language model (fraction)."""
        return self.results["cer_lm"]

    @property
    def wer_lm(self) -> float | None:
        """Word error rate with the language model (fraction)."""
        return self.results["wer_lm"]


def evaluate(
    model: CtcTranscriber,
    utterances: Sequence[Utterance],
    *,
    batch_seconds: float = 120.0,
    out_dir: str | Path | None = None,
    use_language_model: bool = True,
    seed: int = 0,
) -> Evaluation:
    """Measure character and word error rates, greedily and with the bundle's language model.

    References are normalised by the model's text settings; characters that the model cannot write
    stay in them and count as errors. Audio that cannot be read is left out, counted and listed.

    Args:
        model: A fine-tuned model.
        utterances: What to transcribe; those without a transcript are counted and left out.
        batch_seconds: Audio in one batch, padding included (seconds).
        out_dir: Where to write `results.json` and `predictions.jsonl`; None writes nothing.
        use_language_model: Also decode with the language model, where the model has one.
        seed: Of the bootstrap intervals.

    Raises:
        DataError: Nothing could be evaluated.
        ModelError: The model gives NaN, or no characters.
    """
    begin = time.monotonic()
    found = recognise(model, utterances, batch_seconds=batch_seconds)
    if not found.utterances:
        reasons = "; ".join(f"{item.id}: {item.reason}" for item in found.skipped[:3])
        raise DataError(
            f"none of {len(utterances)} utterances can be evaluated: {found.num_unlabelled} have "
            f"no transcript, {len(found.skipped)} cannot be used ({reasons or 'none'})"
        )
    greedy = greedy_texts(found.logits, model.vocabulary)
    search = model.beam_search if use_language_model else None
    beam = None if search is None else _beam(found.logits, search)
    predictions = _predictions(found, greedy, beam)
    results = summarize(predictions, seed=seed)
    results["num_skipped"] = len(found.skipped)
    results["num_unlabelled"] = found.num_unlabelled
    results["skipped"] = [asdict(item) for item in found.skipped]
    results["language_model"] = (
        None if search is None else _describe_search(model.path, search, predictions)
    )
    results["confidence"] = _confidence(model, found, greedy, beam)
    results["unknown_characters"] = _unknown_characters(found.references, model.vocabulary)
    results["wall_seconds"] = round(time.monotonic() - begin, 2)
    evaluation = Evaluation(results=results, predictions=predictions, skipped=found.skipped)
    if out_dir is not None:
        _write(evaluation, Path(out_dir))
    return evaluation


def _confidence(
    model: CtcTranscriber, found: Recognised, greedy: Sequence[str], beam: Sequence[str] | None
) -> dict[str, Any]:
    """Return how far the scores of words can be trusted, for each way of decoding."""
    measured = {}
    for name, texts in (("greedy", greedy), ("lm", beam)):
        if texts is not None:
            heard = hear_words(found.logits, texts, found.references, model.vocabulary)
            stored = stored_map(model.calibration, use_lm=name == "lm")
            measured[name] = measure_confidence(heard, stored)
    return measured


def calibration_of(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the maps that `results.json` holds, as a bundle stores them."""
    return {
        name: found["map"] for name, found in results["confidence"].items() if found is not None
    }


def dev_set(
    model: CtcTranscriber,
    utterances: Sequence[Utterance],
    *,
    batch_seconds: float = 120.0,
    name: str = "dev",
) -> DevSet:
    """Return the logits and references of utterances, to tune a language model on."""
    found = recognise(model, utterances, batch_seconds=batch_seconds)
    return DevSet(
        ids=[utterance.id for utterance in found.utterances],
        logits=found.logits,
        references=found.references,
        name=name,
    )


def _beam(logits: Sequence[NDArray[np.float32]], search: BeamSearch) -> list[str]:
    tracked = track(logits, "beam search", len(logits))
    return [text for item in tracked for text in beam_texts([item], search)]


def _predictions(
    found: Recognised, greedy: Sequence[str], beam: Sequence[str] | None
) -> list[Prediction]:
    predictions = []
    for index, utterance in enumerate(found.utterances):
        reference, with_lm = found.references[index], None if beam is None else beam[index]
        predictions.append(
            Prediction(
                id=utterance.id,
                audio_path=as_text(str(utterance.audio_path)),
                start=utterance.start,
                duration=round(utterance.duration or 0.0, 4),
                speaker=utterance.speaker,
                reference=reference,
                hypothesis=greedy[index],
                hypothesis_lm=with_lm,
                cer=error_rates([reference], [greedy[index]]).cer,
                cer_lm=None if with_lm is None else error_rates([reference], [with_lm]).cer,
            )
        )
    return predictions


def summarize(predictions: Sequence[Prediction], *, seed: int = 0) -> dict[str, Any]:
    """Return the error rates of predictions: overall with 95 % intervals, by speaker, by length.

    Args:
        predictions: At least one.
        seed: Of the bootstrap.
    """
    overall = _rates(predictions)
    results: dict[str, Any] = {
        "num_utterances": len(predictions),
        "audio_seconds": round(sum(item.duration for item in predictions), 2),
        "cer": overall[0].cer,
        "wer": overall[0].wer,
        "cer_lm": overall[1].cer if overall[1] else None,
        "wer_lm": overall[1].wer if overall[1] else None,
    }
    for suffix, rates in zip(("", "_lm"), overall, strict=True):
        if rates is not None:
            results[f"cer{suffix}_interval"] = _interval(rates.per_utterance_characters, seed)
            results[f"wer{suffix}_interval"] = _interval(rates.per_utterance_words, seed)
            results[f"characters{suffix}"] = asdict(rates.characters)
            results[f"words{suffix}"] = asdict(rates.words)
    results["by_speaker"] = _groups(predictions, lambda item: item.speaker or "unknown")
    by_length = _groups(predictions, lambda item: _duration_name(item.duration))
    names = [_duration_name(bound - 1e-6) for bound in (*DURATION_BOUNDS, math.inf)]
    results["by_duration"] = {name: by_length[name] for name in names if name in by_length}
    return results


def _rates(predictions: Sequence[Prediction]) -> tuple[ErrorRates, ErrorRates | None]:
    references = [item.reference for item in predictions]
    greedy = error_rates(references, [item.hypothesis for item in predictions])
    with_lm = [item.hypothesis_lm for item in predictions if item.hypothesis_lm is not None]
    return greedy, error_rates(references, with_lm) if with_lm else None


def _interval(counts: Sequence[EditCounts], seed: int) -> list[float]:
    edits, lengths = [count.edits for count in counts], [count.length for count in counts]
    return list(bootstrap_interval(edits, lengths, seed=seed))


def _groups(
    predictions: Sequence[Prediction], key: Callable[[Prediction], str]
) -> dict[str, dict[str, Any]]:
    members: dict[str, list[Prediction]] = {}
    for item in predictions:
        members.setdefault(key(item), []).append(item)
    groups = {}
    for name in sorted(members):
        greedy, with_lm = _rates(members[name])
        groups[name] = {
            "num_utterances": len(members[name]),
            "cer": greedy.cer,
            "wer": greedy.wer,
            "cer_lm": with_lm.cer if with_lm else None,
            "wer_lm": with_lm.wer if with_lm else None,
        }
    return groups


def _duration_name(seconds: float) -> str:
    low = 0.0
    for high in DURATION_BOUNDS:
        if seconds < high:
            return f"{low:g}-{high:g} s"
        low = high
    return f"over {low:g} s"


def _describe_search(
    bundle_dir: Path | None, search: BeamSearch, predictions: Sequence[Prediction]
) -> dict[str, Any]:
    """Say which weights were used, and whether they were chosen on these very utterances."""
    tuning: dict[str, Any] = {}
    if bundle_dir is not None and (bundle_dir / DECODER_FILE).exists():
        tuning = read_decoder(bundle_dir).get("tuning", {})
    tuned_ids = set(tuning.get("utterance_ids", ()))
    return {
        **asdict(search.config),
        "tuned_on": tuning.get("tuned_on"),
        "num_tuned_on_these_utterances": sum(item.id in tuned_ids for item in predictions),
    }


def _unknown_characters(references: Sequence[str], vocabulary: Vocabulary) -> dict[str, int]:
    """Count the characters of the references that the model cannot write."""
    counts: dict[str, int] = {}
    for character in "".join(references):
        if character not in vocabulary:
            counts[character] = counts.get(character, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def refuse_foreign_files(out_dir: Path) -> None:
    """Check that what `evaluate` would replace in a folder is an evaluation.

    Raises:
        DataError: A file of the same name is there that it did not write.
    """
    results, predictions = (out_dir / name for name in FILES)
    for path in (results, predictions):
        if path.exists() and not _is_evaluation(results):
            raise DataError("is there already and no evaluation; give another folder", path=path)


def _is_evaluation(results: Path) -> bool:
    try:
        found = json.loads(results.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"cer", "num_utterances"} <= set(found)


def _write(evaluation: Evaluation, out_dir: Path) -> None:
    out_dir.mkdir(parents=True, exist_ok=True)
    results = json.dumps(evaluation.results, ensure_ascii=False, indent=1)
    (out_dir / FILES[0]).write_text(results + "\n", encoding="utf-8")
    with (out_dir / FILES[1]).open("w", encoding="utf-8") as file:
        for prediction in evaluation.predictions:
            file.write(json.dumps(asdict(prediction), ensure_ascii=False) + "\n")
