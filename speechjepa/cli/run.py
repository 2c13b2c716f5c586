"""`speechjepa run` and `speechjepa recipes`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

STAGE_NAMES = (
    *("prepare", "check", "pretrain", "finetune", "units", "voice", "translate", "recogniser"),
    *("language_model", "self_training", "evaluate", "report"),
)
DATA_ROOT_VARIABLE = "SPEECHJEPA_DATA"


def add_parser(subparsers: Any) -> None:
    """Add the parsers of `run` and `recipes`."""
    parser = subparsers.add_parser(
        "run",
        help="every stage of a recipe, in order; continues where it stopped",
        description="Run a recipe: check, pretrain, finetune, language model, self-training "
        "where it asks for it, evaluate, report. "
        "Stages whose inputs have not changed are not redone; what is redone is first moved "
        "aside. Ctrl-C leaves a run that the same command continues.",
        epilog="Every setting with its value is in the run folder's recipe.yaml, from the start: "
        "speechjepa run RECIPE --until check writes it.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file or a listed name")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key.sub=value",
        help="settings on top, for example pretrain.minutes=30 seed=1",
    )
    add_run_options(parser)
    parser.add_argument("--until", choices=STAGE_NAMES, help="stop after this stage")
    parser.add_argument(
        "--redo",
        action="append",
        default=[],
        choices=STAGE_NAMES,
        help="redo this stage in any case",
    )
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="also write DIR/recipes/<recipe>-<seed>.json"
    )
    subparsers.add_parser(
        "recipes",
        help="the table of recipes: language, labels, stages, last measured result",
        description="List the recipes of the project, for `speechjepa run NAME`. All have the "
        "stages check and report as well.",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command with a run folder has."""
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help=f"folder that the recipe's locations are relative to (or set {DATA_ROOT_VARIABLE})",
    )
    parser.add_argument(
        "-o",
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="run folder (with a recipe: runs/<name>)",
    )
    parser.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="decoded audio (default: cache/ beside the run folder)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return list_table() if args.command == "recipes" else run_recipe_command(args)


def run_recipe_command(args: argparse.Namespace) -> int:
    """Run a recipe and print its error rates."""
    from speechjepa.workflow.catalogue import find_prepare, find_recipe
    from speechjepa.workflow.recipe import load_recipe

    recipe = load_recipe(args.recipe, args.overrides, args.data_root)
    stages = STAGE_NAMES[: STAGE_NAMES.index(args.until) + 1] if args.until else STAGE_NAMES
    prepare = find_prepare(find_recipe(args.recipe))
    return perform(recipe, args, stages, prepare=prepare, redo=args.redo, results=args.results)


def perform(
    recipe: Any,
    args: argparse.Namespace,
    stages: Sequence[str],
    *,
    prepare: Path | None = None,
    redo: Sequence[str] = (),
    results: Path | None = None,
) -> int:
    """Run stages of a recipe; after Ctrl-C say how to go on."""
    from speechjepa.workflow.outcome import summary_line, write_result
    from speechjepa.workflow.run import StoppedRun
    from speechjepa.workflow.stages import run_recipe

    try:
        states = run_recipe(
            recipe,
            args.run_dir,
            prepare=prepare,
            cache_dir=args.cache_dir,
            only=stages,
            redo=redo,
        )
    except KeyboardInterrupt as stop:
        # Outside a stage as well, for example while a large corpus is read.
        where = (
            f" in {stop.stage} after {stop.minutes:.1f} min" if isinstance(stop, StoppedRun) else ""
        )
        print(f"stopped{where}; continue with:\n  {this_command()}", file=sys.stderr)
        return 130
    if results is not None:
        path = write_result(recipe, states, results, this_command())
        print(f"wrote {path}", file=sys.stderr)
    print(summary_line(recipe, states))
    return 0


def this_command() -> str:
    """Return the command that repeats this one, also in a shell without its environment."""
    program = "speechjepa"
    if Path(sys.argv[0]).name == "__main__.py":
        program = "python -m speechjepa"
    arguments = _without_redo(sys.argv[1:])
    root = os.environ.get(DATA_ROOT_VARIABLE)
    if root and not any(argument.startswith("--data-root") for argument in arguments):
        arguments += ["--data-root", root]
    return f"{program} {shlex.join(arguments)}"


def _without_redo(arguments: Sequence[str]) -> list[str]:
    """Leave out --redo: what was redone is not to be redone again by going on."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if not skip and not argument.startswith("--redo"):
            kept.append(argument)
        skip = argument == "--redo"
    return kept


# ---------------------------------------------------------------------------------------------
# recipes


def list_table() -> int:
    """Print the table of recipes."""
    from speechjepa.config import load_yaml
    from speechjepa.workflow.catalogue import last_results, list_recipes, stage_names

    results = last_results()
    rows = [("RECIPE", "LANGUAGE", "LABELS", "STAGES", "LAST RESULT")]
    for name, path in list_recipes().items():
        settings = load_yaml(path)
        rows.append(
            (
                name,
                str(settings.get("language") or "-"),
                _labels(settings.get("data")),
                ", ".join(stage_names(settings, path)),
                _result(results.get(str(settings.get("name")))),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())
    return 0


def _labels(data: Any) -> str:
    labels = data.get("labels", "all") if isinstance(data, dict) else "all"
    if isinstance(labels, dict):
        return f"{labels.get('minutes')}min, seed {labels.get('seed', 0)}"
    return str(labels)


def _result(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "not run"
    if "training_minutes" in record:
        return _translation_result(record)
    cells = [
        f"{label} {100 * record[key]:.1f} %"
        for key, label in (("cer", "CER"), ("wer", "WER"), ("cer_lm", "CER with LM"))
        if record.get(key) is not None
    ]
    return f"{', '.join(cells)} ({record.get('date', 'undated')})"


def _translation_result(record: Mapping[str, Any]) -> str:
    if record.get("asr_bleu") is not None:
        ceiling = record.get("asr_bleu_ceiling")
        of = "" if ceiling is None else f" of {ceiling:.1f}"
        return f"ASR-BLEU {record['asr_bleu']:.1f}{of}"
    if record.get("bleu") is not None:
        return f"BLEU {record['bleu']:.1f}"
    return f"{100 * record['unit_error_rate']:.1f} % of units wrong"
