"""Score a translator on the dev pairs of its recipe: units, text, speech, and the baselines."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from speechjepa.config import to_dict
from speechjepa.data.pairs import Pair
from speechjepa.errors import AudioError, DataError
from speechjepa.inference.model import SpeechModel, load
from speechjepa.inference.recognise import read_utterance
from speechjepa.inference.retrieval import Known, Retrieval, embed, load_retrieval
from speechjepa.inference.translate_stream import TranslationStream
from speechjepa.inference.translator import SpeechTranslator, Translated
from speechjepa.metrics.error_rate import error_rates
from speechjepa.metrics.translation import (
    Latency,
    bleu,
    chrf,
    latency,
    sequence_error_rate,
    unit_bleu,
)
from speechjepa.models.speech_encoder import SpeechEncoder
from speechjepa.models.speech_to_units import CtcTranslator
from speechjepa.nn.source_filter import SAMPLE_RATE
from speechjepa.workflow.record import write_json
from speechjepa.workflow.translation_data import read_units, translated_text

if TYPE_CHECKING:
    from speechjepa.workflow.translation import TranslationPlan

logger = logging.getLogger(__name__)

Waveform = NDArray[np.float32]
CHUNK_SECONDS = 0.32
"""Of the streams that are measured."""


@dataclass(kw_only=True)
class Row:
    """The translations of one head."""

    units: list[tuple[int, ...]] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    """What it writes itself; None where it does not."""
    spoken: list[Waveform] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    """What the recogniser hears in `spoken`."""
    seconds: float = 0.0
    """That it took."""


class Scorer:
    """Translates the dev pairs of a run and scores them.

    Args:
        plan: Of the run.
    """

    def __init__(self, plan: TranslationPlan) -> None:
        self.plan = plan
        self.run_dir = plan.run_dir
        self.text = plan.recipe.text
        self.model = load(plan.bundle)
        self.translator = SpeechTranslator(self.model)
        self.pairs, self.waveforms = self._read()
        self.is_spoken = self.translator.has_voice
        self.references = [translated_text(pair, self.text) for pair in self.pairs]
        self.has_text = all(self.references)
        self.units: list[list[int]] = []
        if plan.config.writes == "units":
            known = read_units(self.run_dir / "units" / "dev.jsonl")
            self.units = [known[pair.id] for pair in self.pairs]
        folder = self.run_dir / "recogniser" / "bundle"
        wanted = plan.config.recogniser is not None and self.is_spoken and self.has_text
        self.recogniser = load(folder) if wanted else None

    def _read(self) -> tuple[list[Pair], list[Waveform]]:
        plan = self.plan
        candidates = plan.pairs.dev
        if plan.config.writes == "units":
            known = read_units(self.run_dir / "units" / "dev.jsonl")
            candidates = [pair for pair in candidates if pair.id in known]
        every = max(1, -(-len(candidates) // plan.config.max_dev_pairs))
        pairs, waveforms = [], []
        for pair in candidates[::every]:
            try:
                waveforms.append(read_utterance(pair.source, self.model.sample_rate))
                pairs.append(pair)
            except AudioError as error:
                logger.warning("left out: %s", error)
        if not pairs:
            raise DataError("there is no dev pair to translate")
        return pairs, waveforms

    @property
    def source_seconds(self) -> float:
        """How long the sources are together."""
        return sum(map(len, self.waveforms)) / self.model.sample_rate

    def translated(self, translator: SpeechTranslator) -> Row:
        """Translate every pair one by one, as a user would, with the clock running."""
        row = Row()
        begin = time.perf_counter()
        for waveform in self.waveforms:
            (found,) = translator.translate([waveform])
            self._add(row, found)
        row.seconds = time.perf_counter() - begin
        return row

    @property
    def streams(self) -> bool:
        """Whether the model learned to translate while it hears."""
        encoder = self.model.encoder
        return (
            isinstance(encoder, SpeechEncoder)
            and encoder.config.streaming is not None
            and isinstance(self.translator.translator, CtcTranslator)
            and bool(self.units)
        )

    def streamed(self, translator: SpeechTranslator) -> tuple[Row, dict[str, float]]:
        """Translate every pair as a stream would; return what was said, and how late.

        A unit's delay is the audio heard before it was written (ms); computation-aware, the time on
        the clock since the source began, had it come live.
        """
        row, late = Row(), []
        translator.load_language_model()  # both before the clock runs
        if translator.has_voice:
            _ = translator.voice
        for waveform, units in zip(self.waveforms, self.units, strict=True):
            found, delays, clock = self._stream(translator, waveform, row)
            self._add(row, Translated(units=found), spoken=False)
            if found:
                length = 1000.0 * (len(waveform) / self.model.sample_rate)  # rounded as delays
                ideal, aware = (latency(d, length, max(1, len(units))) for d in (delays, clock))
                late.append({**_named(ideal, ""), **_named(aware, "_computation_aware")})
        means = (
            {name: float(np.mean([one[name] for one in late])) for name in late[0]} if late else {}
        )
        return row, {"chunk_seconds": CHUNK_SECONDS, **means}

    def _stream(
        self, translator: SpeechTranslator, waveform: Waveform, row: Row
    ) -> tuple[tuple[int, ...], list[float], list[float]]:
        rate = self.model.sample_rate
        size = round(CHUNK_SECONDS * rate)
        stream = TranslationStream(translator, chunk_seconds=CHUNK_SECONDS)
        units: list[int] = []
        delays: list[float] = []
        clock: list[float] = []
        speech: list[Waveform] = []
        now = 0.0  # seconds on the clock, were the source live
        for first in range(0, len(waveform) + size, size):
            piece = waveform[first : first + size]
            heard = min(len(waveform), first + size) / rate
            begin = time.perf_counter()
            said = stream.feed(piece) if len(piece) else stream.finish()
            spent = time.perf_counter() - begin
            row.seconds += spent
            now = max(now, heard) + spent
            units += said.units
            delays += [1000.0 * heard] * len(said.units)
            clock += [1000.0 * now] * len(said.units)
            speech.append(said.speech)
            if not len(piece):
                break
        row.spoken.append(np.concatenate(speech))
        return tuple(units), delays, clock

    def retrieved(self) -> Row:
        """Translate by the nearest known source, in the encoder's middle layer."""
        layer = max(1, self.model.encoder.num_layers // 2)
        known = self._known()
        waveforms = [read_utterance(pair.source, self.model.sample_rate) for pair, _ in known]
        steps = [embed(self.model, waveform, layer) for waveform in waveforms]
        Retrieval.fit([entry for _, entry in known], steps, layer).save(
            self.plan.bundle, self._recordings([pair for pair, _ in known])
        )
        retrieval = load_retrieval(self.plan.bundle)
        row = Row()
        begin = time.perf_counter()
        for waveform in self.waveforms:
            nearest = retrieval.find(embed(self.model, waveform, layer)).known
            speech = retrieval.speech(nearest) if self.is_spoken else None
            found = Translated(units=nearest.units, text=nearest.text, speech=speech)
            self._add(row, found)
        row.seconds = time.perf_counter() - begin
        return row

    def _recordings(self, pairs: Sequence[Pair]) -> list[Waveform] | None:
        """Return what says the translation of each pair; None where nothing does, or too much."""
        recordings: list[Waveform] = []
        seconds = 0.0
        for pair in pairs:
            if not self.is_spoken or pair.target is None:
                return None
            recordings.append(read_utterance(pair.target, SAMPLE_RATE))
            seconds += len(recordings[-1]) / SAMPLE_RATE
            if seconds > 60 * self.plan.config.voice_minutes:
                logger.info(
                    "known translations last more than `translation.voice_minutes`: the head "
                    "retrieval says them in units, not by their recordings"
                )
                return None
        return recordings

    def _known(self) -> list[tuple[Pair, Known]]:
        plan = self.plan
        units = (
            read_units(self.run_dir / "units" / "train.jsonl")
            if plan.config.writes == "units"
            else {}
        )
        return [
            (
                pair,
                Known(
                    id=pair.id,
                    units=tuple(units.get(pair.id, ())),
                    text=translated_text(pair, self.text) or None,
                ),
            )
            for pair in plan.pairs.train
            if plan.config.writes == "characters" or pair.id in units
        ]

    def resynthesised(self) -> Row:
        """Speak the true units: what the voice alone loses."""
        row = Row()
        for units in self.units:
            self._add(row, Translated(units=tuple(units)))
        return row

    def true(self) -> Row:
        """Take the true target speech: what the recogniser alone loses."""
        row = Row()
        for pair, units in zip(self.pairs, self.units, strict=True):
            assert pair.target is not None
            row.units.append(tuple(units))
            row.texts.append(None)
            row.spoken.append(read_utterance(pair.target, self.model.sample_rate))
        return row

    def _add(self, row: Row, found: Translated, *, spoken: bool = True) -> None:
        row.units.append(found.units)
        row.texts.append(found.text)
        if self.is_spoken and spoken:
            said = found.speech
            row.spoken.append(self.translator.speak(found.units) if said is None else said)

    def scores(self, row: Row) -> dict[str, Any]:
        """Return what a row is worth; scores that need what is not there are null."""
        found: dict[str, Any] = dict.fromkeys(
            ("unit_error_rate", "unit_bleu", "bleu", "chrf", "asr_bleu", "asr_chrf", "asr_cer")
        )
        if self.units:
            found["unit_error_rate"] = sequence_error_rate(self.units, row.units)
            found["unit_bleu"] = unit_bleu(self.units, row.units).value
        written = [text for text in row.texts if text is not None]
        if self.has_text and len(written) == len(self.references):
            scored = bleu(self.references, written), chrf(self.references, written)
            found["bleu"], found["chrf"] = (score.value for score in scored)
            found["signatures"] = [score.signature for score in scored]
        if self.recogniser is not None:
            row.heard = [hear(self.recogniser, waveform) for waveform in row.spoken]
            scored = bleu(self.references, row.heard), chrf(self.references, row.heard)
            found["asr_bleu"], found["asr_chrf"] = (score.value for score in scored)
            found["asr_cer"] = error_rates(self.references, row.heard).cer
            found["signatures"] = [score.signature for score in scored]
        if row.seconds:
            found["rtf"] = row.seconds / self.source_seconds
        return found


def _named(found: Latency, suffix: str) -> dict[str, float]:
    return {
        f"al_ms{suffix}": found.al,
        f"laal_ms{suffix}": found.laal,
        f"start_offset_ms{suffix}": found.start_offset,
        f"end_offset_ms{suffix}": found.end_offset,
    }


def hear(model: SpeechModel, waveform: Waveform) -> str:
    """Return what a recogniser hears in speech (S,), by its best path; nothing in silence."""
    if len(waveform) < model.hop:
        return ""
    logits, lengths = model.logits(torch.from_numpy(waveform)[None])
    return model.vocabulary.decode_ctc(logits[0, : int(lengths)].argmax(dim=-1).tolist())


def evaluate_translation(plan: TranslationPlan) -> dict[str, Any]:
    """Translate the dev pairs; write `evaluate/` results.json, predictions.jsonl and examples/."""
    scorer = Scorer(plan)
    head: str = scorer.translator.files.config.head
    translators = {"": scorer.translator}
    if scorer.translator.has_language_model:
        translators["_best_path"] = SpeechTranslator(scorer.model, decoder="greedy")
    rows = {f"{head}{way}": scorer.translated(one) for way, one in translators.items()}
    rows["retrieval"] = scorer.retrieved()
    if scorer.is_spoken:
        rows |= {"true_units": scorer.resynthesised(), "true_speech": scorer.true()}
    streaming: dict[str, Any] | None = None
    if scorer.streams:
        late: dict[str, dict[str, Any]] = {}
        for way, one in translators.items():
            rows[f"streaming{way}"], late[way] = scorer.streamed(one)
        streaming = late.pop("")
        streaming |= {f"laal_ms{way}": one.get("laal_ms") for way, one in late.items()}
    found = {name: scorer.scores(row) for name, row in rows.items()}
    folder = plan.run_dir / "evaluate"
    folder.mkdir(parents=True, exist_ok=True)
    results = {
        "head": head,
        "pairs": len(scorer.pairs),
        "source_seconds": scorer.source_seconds,
        "text_normalisation": to_dict(scorer.text),
        "streaming": streaming,
        "rows": found,
    }
    write_json(folder / "results.json", results)
    _write_predictions(scorer, rows, folder / "predictions.jsonl")
    if scorer.is_spoken:
        _write_examples(scorer, rows[head], folder / "examples", plan.config.num_examples)
    best = found[head]
    share = None
    if best["asr_bleu"] is not None and found["true_speech"]["asr_bleu"]:
        share = best["asr_bleu"] / found["true_speech"]["asr_bleu"]
    return {**results, "share_of_ceiling": share}


def _write_predictions(scorer: Scorer, rows: dict[str, Row], path: Path) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for place, pair in enumerate(scorer.pairs):
            entry: dict[str, Any] = {"id": pair.id, "source": pair.source.text}
            entry["reference"] = scorer.references[place] or None
            for name, row in rows.items():
                entry[name] = {
                    "units": list(row.units[place]),
                    "text": row.texts[place],
                    "heard": row.heard[place] if row.heard else None,
                }
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _write_examples(scorer: Scorer, row: Row, folder: Path, number: int) -> None:
    from speechjepa.audio.files import write_wav

    folder.mkdir(parents=True, exist_ok=True)
    every = max(1, len(scorer.pairs) // max(1, number))
    places: Sequence[int] = range(0, len(scorer.pairs), every)[:number]
    for place in places:
        pair = scorer.pairs[place]
        assert pair.target is not None
        target = read_utterance(pair.target, scorer.model.sample_rate)
        for name, waveform in (
            ("source", scorer.waveforms[place]),
            ("translation", row.spoken[place]),
            ("reference", target),
        ):
            if len(waveform):
                write_wav(folder / f"{pair.id}-{name}.wav", waveform)
