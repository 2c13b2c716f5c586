"""Write report.html: one self-contained page about a run, to look at instead of reading logs."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

from speechjepa.config import load_yaml
from speechjepa.errors import DataError
from speechjepa.workflow import report_translation
from speechjepa.workflow.report_confidence import confidence
from speechjepa.workflow.report_errors import bars, confusion, utterances
from speechjepa.workflow.report_lines import read_lines
from speechjepa.workflow.report_representation import picture
from speechjepa.workflow.report_svg import escape, number
from speechjepa.workflow.report_training import curves, snapshot

logger = logging.getLogger(__name__)

REPORT_FILE = "report.html"
_STAGE_NAMES = {"language_model": "language model", "self_training": "self-training"}
_RATES = {"cer": "CER", "wer": "WER", "cer_lm": "CER with LM", "wer_lm": "WER with LM"}
_NOT_EVALUATED = '<p class="none">This run has not been evaluated: there are no predictions.</p>'


def write_report(run_dir: str | os.PathLike[str]) -> Path:
    """Write `report.html` into a run folder from what the stages left there.

    What is missing, such as pretraining in a run that had none, is said in words on the page. The
    page needs no network and no other file; transcripts and file names are escaped.

    Args:
        run_dir: The run folder.

    Returns:
        The file.

    Raises:
        DataError: There is no such folder, or a file in it is damaged.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise DataError("there is no such run folder", path=run_dir)
    recipe = load_yaml(run_dir / "recipe.yaml") if (run_dir / "recipe.yaml").exists() else {}
    states = _read_json(run_dir / "state.json").get("stages", {})
    results = _read_json(run_dir / "evaluate" / "results.json")
    name = str(recipe.get("name") or run_dir.name)
    if recipe.get("translation") is not None:
        sections = report_translation.sections(run_dir, results, states)
        figures = _tiles(report_translation.figures(results))
    else:
        sections = [*_training(run_dir, recipe, states), *_evaluation(run_dir, results)]
        figures = _figures(results, states)
    sections.append(("settings", "Settings", _settings(run_dir)))
    head = _header(name, recipe) + figures + _stages(states)
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in sections)
    body = f"<header>{head}</header><nav>{links}</nav>" + "".join(
        f'<section id="{key}"><h2>{title}</h2>{text}</section>' for key, title, text in sections
    )
    template = resources.files("speechjepa.workflow").joinpath("report_template.html")
    page = template.read_text("utf-8").replace("@TITLE@", escape(name)).replace("@BODY@", body)
    path = run_dir / REPORT_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)
    logger.info("report: %s (%.1f MB)", path, path.stat().st_size / 1e6)
    return path


def _training(
    run_dir: Path, recipe: dict[str, Any], states: dict[str, Any]
) -> list[tuple[str, str, str]]:
    """Return the sections about training: key, title, content."""
    if recipe.get("pretrain", {}) is None and recipe.get("init") in (None, "fresh", "shipped"):
        # The folder may hold pretraining of an earlier recipe; this model has none of it.
        states.pop("pretrain", None)
        return [("curves", "Training", curves(run_dir, ("finetune",)))]
    if (recipe.get("pretrain") or {}).get("objective") == "future":  # which hides no spans
        return [("curves", "Training", curves(run_dir))]
    return [
        ("curves", "Training", curves(run_dir)),
        ("prediction", "What pretraining predicts", snapshot(run_dir)),
    ]


def _evaluation(run_dir: Path, results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the sections about what the model makes of dev: key, title, content."""
    predictions = read_predictions(run_dir / "evaluate" / "predictions.jsonl")
    parts = [_NOT_EVALUATED] * 3
    if predictions:
        stage = "self_training" if (run_dir / "self_training").exists() else "finetune"
        bundle = run_dir / stage / "bundle"
        parts = [picture(bundle, predictions), utterances(predictions), confusion(predictions)]
    return [
        ("representation", "The representation", parts[0]),
        ("groups", "Errors by speaker and by length", _groups(results)),
        ("confidence", "Can the scores be trusted?", confidence(results)),
        ("utterances", "Utterances", parts[1]),
        ("characters", "Characters", parts[2]),
    ]


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """Read predictions.jsonl; empty where there is none.

    Raises:
        DataError: A line is not JSON or lacks a field.
    """
    wanted = ("id", "audio_path", "start", "duration", "reference", "hypothesis", "cer")
    return read_lines(path, wanted)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"is not JSON: {error}", path=path) from error
    if not isinstance(content, dict):
        raise DataError("must hold a JSON object", path=path)
    return content


def _header(name: str, recipe: dict[str, Any]) -> str:
    language, seed = recipe.get("language"), recipe.get("seed")
    facts = [
        str(recipe.get("title") or ""),
        f"language {language}" if language else "",
        f"seed {seed}" if seed is not None else "",
        date.today().isoformat(),
    ]
    return f"<h1>{escape(name)}</h1><p>{escape(' · '.join(filter(None, facts)))}</p>"


def _figures(results: dict[str, Any], states: dict[str, Any]) -> str:
    """The figures that people come for, large."""
    tiles = []
    for key, title in _RATES.items():
        if results.get(key) is not None:
            interval = results.get(f"{key}_interval")
            note = f"{interval[0]:.1%} to {interval[1]:.1%}" if interval else ""
            tiles.append((f"{results[key]:.1%}", title, note))
    kept = {k: v for state in states.values() for k, v in (state.get("figures") or {}).items()}
    if kept.get("label_minutes") is not None:
        tiles.append((f"{kept['label_minutes']:.1f} min", "labels", ""))
    if kept.get("unlabelled_hours") is not None:
        note = f"pretrained for {states.get('pretrain', {}).get('minutes', 0):.0f} min"
        tiles.append((f"{kept['unlabelled_hours']:.1f} h", "unlabelled audio", note))
    elif kept.get("rounds"):
        hours = kept["unlabelled_minutes"] / 60
        note = f"transcribed by itself, {kept['rounds']} times"
        tiles.append((f"{hours:.1f} h", "unlabelled audio", note))
    if kept.get("parameters"):
        tiles.append((number(kept["parameters"]), "parameters", ""))
    return _tiles(tiles) + _evaluated(results) if tiles else ""


def _tiles(tiles: Sequence[tuple[str, str, str]]) -> str:
    """Draw figures with their titles and notes, large."""
    drawn = "".join(
        f'<div class="tile"><b>{escape(figure)}</b><span>{escape(title)}</span>'
        f"<small>{escape(note)}</small></div>"
        for figure, title, note in tiles
    )
    return f'<div class="tiles">{drawn}</div>' if tiles else ""


def _evaluated(results: dict[str, Any]) -> str:
    if not results:
        return ""
    words = (
        f"On {results.get('num_utterances', 0)} dev utterances "
        f"({results.get('audio_seconds', 0) / 60:.1f} min), with 95 % bootstrap intervals"
    )
    if results.get("num_skipped"):
        words += f"; {results['num_skipped']} utterances could not be read and were left out"
    tuned = (results.get("language_model") or {}).get("num_tuned_on_these_utterances")
    if tuned:
        words += f"; the weights of the language model were tuned on {tuned} of these utterances"
    return f'<p class="hint">{escape(words)}.</p>'


def _stages(states: dict[str, Any]) -> str:
    if not states:
        return ""
    items = "".join(
        f'<li class="{escape(state.get("status", ""))}">{escape(_STAGE_NAMES.get(name, name))} '
        f"<b>{_minutes(state)}</b></li>"
        for name, state in states.items()
        if name != "report"
    )
    return f'<ol class="stages">{items}</ol>'


def _minutes(state: dict[str, Any]) -> str:
    if state.get("status") != "done":
        return escape(state.get("status", ""))
    minutes = float(state.get("minutes", 0))
    return f"{minutes:.1f} min" if minutes >= 1 else f"{minutes * 60:.0f} s"


def _groups(results: dict[str, Any]) -> str:
    if not results:
        return _NOT_EVALUATED
    hint = "Character error rate, best path"
    if results.get("cer_lm") is not None:
        hint += "; the upright mark is the rate with the language model"
    return (
        f'<p>{hint}. The last column counts utterances.</p><div class="two">'
        f"<div><h3>By speaker</h3>{bars(results.get('by_speaker', {}), 'speaker')}</div>"
        f"<div><h3>By length</h3>{bars(results.get('by_duration', {}), 'length')}</div></div>"
    )


def _settings(run_dir: Path) -> str:
    path = run_dir / "recipe.yaml"
    if not path.exists():
        return '<p class="none">There is no recipe.yaml in this run folder.</p>'
    text = escape(path.read_text(encoding="utf-8"))
    summary = "<summary>recipe.yaml, every setting as it was used</summary>"
    return f"<details>{summary}<pre>{text}</pre></details>"
