"""What a run amounts to: one line for people, one JSON record for the tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechjepa.errors import ConfigError
from speechjepa.workflow.recipe import Recipe
from speechjepa.workflow.record import make_record, write_json
from speechjepa.workflow.run import StageState
from speechjepa.workflow.start import shipped_start


def rates_text(rates: Mapping[str, Any]) -> str:
    """Say the fractions `cer`, `wer` and, with a language model, `cer_lm`, `wer_lm` in words."""
    text = f"CER {_percent(rates['cer'])}, WER {_percent(rates['wer'])}"
    if rates.get("cer_lm") is None:
        return text + " (no language model)"
    with_lm = f"CER {_percent(rates['cer_lm'])}, WER {_percent(rates['wer_lm'])}"
    return f"{text}; with language model {with_lm}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def summary_line(recipe: Recipe, states: Mapping[str, StageState]) -> str:
    """Return the last line of a run: the error rates, or what was made."""
    minutes = sum(state.minutes for state in states.values())
    if "evaluate" not in states:
        return f"{recipe.name}: {', '.join(states)} done in {minutes:.1f} min"
    figures = states["evaluate"].figures
    if recipe.translation is not None:
        return f"{recipe.name}: {translation_text(figures)}; {minutes:.1f} min in all"
    return f"{recipe.name} {figures['split']}: {rates_text(figures)}; {minutes:.1f} min in all"


def translation_text(figures: Mapping[str, Any]) -> str:
    """Say in words how good a translator is, beside what it could be and the baseline."""
    rows, head = figures["rows"], figures["head"]
    told = []
    for key, name in (
        ("unit_error_rate", "unit error rate"),
        ("bleu", "BLEU"),
        ("chrf", "chrF"),
        ("asr_bleu", "ASR-BLEU"),
    ):
        if rows[head][key] is None:
            continue
        percent = key == "unit_error_rate"
        own, known = (
            _percent(rows[row][key]) if percent else f"{rows[row][key]:.1f}"
            for row in (head, "retrieval")
        )
        told.append(f"{name} {own} (retrieval {known})")
    ceiling = rows.get("true_speech", {}).get("asr_bleu")
    if ceiling is not None:
        told.append(f"true speech has ASR-BLEU {ceiling:.1f}")
    return ", ".join(told)


def _without_places(command: str, data_root: Path | None) -> str:
    """Say the data root by its variable: where it lies here is nobody else's business."""
    return command if data_root is None else command.replace(str(data_root), "$SPEECHJEPA_DATA")


def write_result(
    recipe: Recipe, states: Mapping[str, StageState], results_dir: Path, command: str
) -> Path:
    """Write `<results_dir>/recipes/<recipe>-<seed>.json`.

    Rates are fractions; `figure` is the better CER in percent.

    Raises:
        ConfigError: The run was not evaluated.
    """
    if "evaluate" not in states:
        raise ConfigError(f"{recipe.name} was not evaluated, so there is no result to write")
    figures = states["evaluate"].figures
    if recipe.translation is not None:
        raise ConfigError(
            "--results has no place for a translation: tools/benchmark_translation.py writes its "
            "rows to results/translation/"
        )
    has_lm = figures["cer_lm"] is not None
    best = figures["cer_lm"] if has_lm else figures["cer"]
    pretrain = states.get("pretrain")
    finetune = states.get("finetune")
    record = make_record(
        what=f"CER of {recipe.name} on {figures['split']}"
        + (", with language model" if has_lm else ", greedy"),
        figure=round(100 * best, 2),
        unit="% CER",
        command=_without_places(command, recipe.data.root),
        seed=recipe.seed,
        recipe=recipe.name,
        split=figures["split"],
        **{name: figures[name] for name in ("cer", "wer", "cer_lm", "wer_lm")},
        label_minutes=round(finetune.figures["label_minutes"], 2) if finetune else None,
        pretraining_minutes=round(pretrain.minutes, 2) if pretrain else 0.0,
        unlabelled_hours=round(_unlabelled_hours(states), 3),
        parameters=figures["parameters"],
        shipped_encoder=shipped_start(recipe),
        stage_minutes={name: round(state.minutes, 2) for name, state in states.items()},
    )
    path = results_dir / "recipes" / f"{recipe.name}-{recipe.seed}.json"
    write_json(path, record)
    return path


def _unlabelled_hours(states: Mapping[str, StageState]) -> float:
    """Return the hours of audio that were learnt from without their transcripts."""
    hours = [0.0]
    if "pretrain" in states:
        hours.append(states["pretrain"].figures["unlabelled_hours"])
    if "self_training" in states:
        hours.append(states["self_training"].figures["unlabelled_minutes"] / 60)
    return max(hours)
