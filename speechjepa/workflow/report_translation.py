"""Parts of the report that only a run of translation has: pairs, scores, what it sounds like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechjepa.audio.files import read_audio
from speechjepa.errors import AudioError, DataError
from speechjepa.metrics.error_rate import error_rates
from speechjepa.workflow.report_errors import MAX_PLAYER_SECONDS, alignment, marks, opus
from speechjepa.workflow.report_lines import read_lines
from speechjepa.workflow.report_svg import escape
from speechjepa.workflow.report_training import curves
from speechjepa.workflow.voice_report import spectrogram

WORST = 8
MAX_FINDINGS = 30
NOT_EVALUATED = '<p class="none">This run has not been evaluated: there are no scores.</p>'
SAMPLE_RATE = 16000
_ROWS = {
    "ctc": "Translator, all at once (CTC)",
    "ctc_best_path": "The same without its language model (best path)",
    "autoregressive": "Translator, unit after unit (beam search)",
    "streaming": "Translator, while it listens",
    "streaming_best_path": "While it listens, without its language model",
    "retrieval": "Nearest known utterance",
    "true_units": "True units, spoken by the voice",
    "true_speech": "True speech",
}
_COLUMNS = {
    "asr_bleu": ("ASR-BLEU", 1),
    "asr_chrf": ("ASR-chrF", 1),
    "asr_cer": ("ASR-CER (%)", 100),
    "bleu": ("BLEU", 1),
    "chrf": ("chrF", 1),
    "unit_error_rate": ("Unit error rate (%)", 100),
    "unit_bleu": ("Unit BLEU", 1),
    "rtf": ("Real-time factor", 1),
}
"""Of the table: key, title, and what a value is multiplied by."""
_LATENCIES = {
    "al_ms": "average lagging (AL)",
    "laal_ms": "length-adaptive average lagging (LAAL)",
    "start_offset_ms": "start offset",
    "end_offset_ms": "end offset",
}
_SOUNDS = {
    "source": "Source",
    "reference": "True target",
    "translation": "Translation",
}


def sections(
    run_dir: Path, results: Mapping[str, Any], states: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """Return the sections of a run of translation: key, title, content."""
    predictions = _predictions(run_dir / "evaluate" / "predictions.jsonl")
    return [
        ("data", "Data", _data(run_dir, states)),
        ("curves", "Training", _training(run_dir)),
        ("doctor", "What the doctor said", _findings(run_dir)),
        ("scores", "Scores", _scores(results) + _language_model(states)),
        ("examples", "Examples", _examples(run_dir, results, predictions)),
        ("worst", "The worst translations", _worst(results, predictions)),
    ]


def figures(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the figures that people come for: figure, title, note."""
    if not results:
        return []
    rows = results["rows"]
    own, known = rows[results["head"]], rows.get("retrieval", {})
    tiles = []
    for key in ("asr_bleu", "bleu", "chrf", "unit_error_rate"):
        title, scale = _COLUMNS[key]
        if own.get(key) is not None:
            other = known.get(key)
            note = "" if other is None else f"nearest known: {scale * other:.1f}"
            tiles.append((f"{scale * own[key]:.1f}", title, note))
    ceiling = rows.get("true_speech", {}).get("asr_bleu")
    if own.get("asr_bleu") is not None and ceiling:
        share = f"{own['asr_bleu'] / ceiling:.0%}"
        tiles.append((share, "of true speech", f"whose ASR-BLEU is {ceiling:.1f}"))
    late = (results.get("streaming") or {}).get("laal_ms")
    if late is not None:
        tiles.append((f"{late / 1000:.2f} s", "behind the speaker", "LAAL"))
    tiles.append((str(results["pairs"]), "dev pairs", f"{results['source_seconds'] / 60:.1f} min"))
    return tiles


def _data(run_dir: Path, states: Mapping[str, Any]) -> str:
    path = run_dir / "check.json"
    if not path.exists():
        return '<p class="none">The data of this run were not looked at.</p>'
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"))["pairs"]
        names = list(next(iter(pairs.values())))
        rows = [[split, *(str(counts[name]) for name in names)] for split, counts in pairs.items()]
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise DataError(f"is damaged ({error}); run the stage check again", path=path) from error
    known = {k: v for state in states.values() for k, v in (state.get("figures") or {}).items()}
    facts = []
    if known.get("pair_minutes") is not None:
        facts.append(f"{known['pair_minutes']:.1f} minutes of source speech to learn from")
    if known.get("minutes_of_voice") is not None:
        facts.append(f"a voice made of {known['minutes_of_voice']:.1f} minutes")
    rates = known.get("units_per_second")
    if isinstance(rates, dict) and rates.get("train") is not None:
        facts.append(f"{rates['train']:.1f} units a second")
    if known.get("synthesised"):
        facts.append(f"{known['synthesised']} targets spoken by espeak-ng")
    told = "; ".join(facts)
    said = f"<p>{escape(told[0].upper() + told[1:])}.</p>" if told else ""
    return said + _table(["split", *names], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], best: int | None = None) -> str:
    """Return a table of numbers, its first column names; row `best` stands out."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        ('<tr class="best">' if number == best else "<tr>")
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for number, row in enumerate(rows)
    )
    return (
        f'<div class="wide"><table class="scores"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _training(run_dir: Path) -> str:
    stages = ["translate"]
    if (run_dir / "recogniser" / "metrics.csv").exists():
        stages.append("recogniser")
    return curves(run_dir, stages)


def _findings(run_dir: Path) -> str:
    items = []
    for folder, name in (("translate", "translator"), ("recogniser", "recogniser")):
        for entry in read_lines(run_dir / folder / "doctor.jsonl", ("step", "message")):
            items.append(f"<li><b>{name}</b> {escape(entry['message'])}</li>")
        skipped = read_lines(run_dir / folder / "skipped.jsonl", ())
        if skipped:
            items.append(f"<li><b>{name}</b> {len(skipped)} recordings could not be read</li>")
    if not items:
        return "<p>Nothing: no reading looked wrong.</p>"
    more = len(items) - MAX_FINDINGS
    rest = f'<p class="hint">and {more} more, in doctor.jsonl</p>' if more > 0 else ""
    return f'<ul class="findings">{"".join(items[:MAX_FINDINGS])}</ul>{rest}'


def _scores(results: Mapping[str, Any]) -> str:
    if not results:
        return NOT_EVALUATED
    rows, head = results["rows"], results["head"]
    shown = [name for name in _ROWS if name in rows]
    shown += [name for name in rows if name not in _ROWS]
    columns = [k for k in _COLUMNS if any(rows[row].get(k) is not None for row in shown)]
    table = _table(
        ["", *(_COLUMNS[key][0] for key in columns)],
        [
            [_ROWS.get(row, row), *(_value(rows[row].get(k), _COLUMNS[k][1]) for k in columns)]
            for row in shown
        ],
        best=shown.index(head) if head in shown else None,
    )
    words = (
        f"On {results['pairs']} dev pairs ({results['source_seconds'] / 60:.1f} min). BLEU and "
        "chrF are those of the text that the translator writes itself; ASR-BLEU, ASR-chrF and "
        "ASR-CER those of what a recogniser of the target language hears. What it makes of true "
        "speech is the ceiling, of the true units, spoken, what the voice alone loses."
    )
    return f"<p>{words}</p>{table}{_latency(results)}{_signatures(results)}"


def _language_model(states: Mapping[str, Any]) -> str:
    """Return what language models of the targets changed on dev, or nothing without any."""
    figures = (states.get("language_model") or {}).get("figures") or {}
    rows = [
        [
            name,
            *(_value(found[key], 100) for key in ("error_rate_best_path", "error_rate")),
            *(f"{found[key]:g}" for key in ("lm_weight", "blank_score")),
            "yes" if found["is_used"] else "no, it does not help",
        ]
        for part, name in (("tokens", "what is spoken or written"), ("text", "text beside units"))
        if (found := figures.get(part)) is not None
    ]
    if not rows:
        return ""
    known = figures["tokens"]
    words = (
        f"{known['order']}-grams of {known['sequences']} training targets, whose weights are the "
        f"best of those tried on {known['pairs']} dev pairs, by the errors per token."
    )
    header = ["", "best path (%)", "with it (%)", "weight", "blank", "used"]
    return f"<h3>Language model</h3><p>{words}</p>{_table(header, rows)}"


def _value(value: float | None, scale: float) -> str:
    if value is None:
        return "–"
    return f"{scale * value:.2f}" if scale == 1 and abs(value) < 1 else f"{scale * value:.1f}"


def _latency(results: Mapping[str, Any]) -> str:
    streaming = results.get("streaming")
    if not streaming:
        return ""
    rows = [
        [name, *(_value(streaming.get(key + suffix), 1) for suffix in ("", "_computation_aware"))]
        for key, name in _LATENCIES.items()
        if streaming.get(key) is not None
    ]
    title = f"<h3>How late a stream is, in chunks of {streaming['chunk_seconds']:g} s</h3>"
    return title + _table(["ms", "audio alone", "with the time to compute"], rows)


def _signatures(results: Mapping[str, Any]) -> str:
    found = results["rows"][results["head"]].get("signatures") or []
    normalised = json.dumps(results.get("text_normalisation"), ensure_ascii=False)
    lines = escape("\n".join([*found, f"texts are normalised: {normalised}"]))
    return f"<details><summary>How it was measured</summary><pre>{lines}</pre></details>"


# ---------------------------------------------------------------------------------------------
# Examples


def _examples(
    run_dir: Path, results: Mapping[str, Any], predictions: Sequence[dict[str, Any]]
) -> str:
    folder = run_dir / "evaluate" / "examples"
    ids = [path.name.removesuffix("-source.wav") for path in sorted(folder.glob("*-source.wav"))]
    if not ids:
        return '<p class="none">There is no speech here: this run translates into text.</p>'
    by_id = {entry["id"]: entry for entry in predictions}
    cards = []
    for name in ids:
        figures = "".join(_sound(folder / f"{name}-{kind}.wav", t) for kind, t in _SOUNDS.items())
        entry = by_id.get(name)
        told = "" if entry is None else _texts(entry, str(results["head"]))
        cards.append(
            f'<article class="utterance"><header><b><bdi>{escape(name)}</bdi></b></header>'
            f'<div class="sounds">{figures}</div>{told}</article>'
        )
    return marks("Under the true translation, what became of it") + "".join(cards)


def _sound(path: Path, title: str) -> str:
    if not path.exists():
        return f"<figure><figcaption><b>{title}</b> says nothing</figcaption></figure>"
    try:
        waveform = read_audio(path)
    except AudioError as error:
        reason = escape(error.reason)
        return f"<figure><figcaption><b>{title}</b> no player: {reason}</figcaption></figure>"
    seconds = len(waveform) / SAMPLE_RATE
    cut = waveform[: round(MAX_PLAYER_SECONDS * SAMPLE_RATE)]
    note = f", the first {MAX_PLAYER_SECONDS:.0f} s" if len(cut) < len(waveform) else ""
    return (
        f"<figure><figcaption><b>{title}</b> {seconds:.1f} s{note}</figcaption>"
        f'<img alt="spectrogram of {title.lower()}" src="{spectrogram(cut)}"/>'
        f'<audio controls="controls" preload="metadata" src="{opus(cut)}"></audio></figure>'
    )


def _texts(entry: Mapping[str, Any], head: str) -> str:
    """Return what was said, and under the true translation what was written and heard."""
    source, reference, found = entry.get("source"), entry.get("reference"), entry[head]
    lines = ""
    if source:
        lines += f'<p class="source" dir="auto">{escape(source)}</p>'
    if not reference:
        units = " ".join(map(str, found["units"]))
        return lines + (f'<p class="hint">units {escape(units)}</p>' if units else "")
    for label, key in (("written", "text"), ("heard", "heard")):
        if found.get(key) is not None:
            lines += alignment(label, reference, found[key], above="true")
    return lines


def _worst(results: Mapping[str, Any], predictions: Sequence[dict[str, Any]]) -> str:
    if not results or not predictions:
        return NOT_EVALUATED
    head = str(results["head"])
    key = "heard" if predictions[0][head].get("heard") is not None else "text"
    wrong = []
    for entry in predictions:
        reference, found = entry.get("reference"), entry[head].get(key)
        if reference and found is not None and found != reference:
            wrong.append((error_rates([reference], [found]).cer, entry))
    if not wrong:
        known = any(entry.get("reference") for entry in predictions)
        none = "There are none: every translation is as it should be."
        return f"<p>{none if known else 'There is no text to tell them by.'}</p>"
    wrong.sort(key=lambda item: -item[0])
    what = "what the recogniser hears" if key == "heard" else "what is written"
    cards = "".join(
        f'<article class="utterance"><header><b><bdi>{escape(entry["id"])}</bdi></b>'
        f"<span>CER {error:.0%}</span></header>{_texts(entry, head)}</article>"
        for error, entry in wrong[:WORST]
    )
    return f"<p>By the characters that are wrong in {what}.</p>{cards}"


def _predictions(path: Path) -> list[dict[str, Any]]:
    return read_lines(path, ("id",))
