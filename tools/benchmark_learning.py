"""Compare what pretraining is worth: one network, one pool, one budget, several objectives.

    OMP_NUM_THREADS=1 python tools/benchmark_learning.py --data-root DATA --work runs/learning \\
        --rows labels_only jepa_ema contrastive --columns mboshi-10min --seeds 0 --budget 20

Every row but the first two is pretrained once per seed for the same minutes on the same pool, and
serves every column. A cell is one JSON file, `results/learning/COLUMN/ROW-SEED.json`. Cells that
exist are not run again; runs that were interrupted go on where they stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from speechjepa.training.pretrain import pretrain
from speechjepa.workflow.corpora import Corpora
from speechjepa.workflow.recipe import Recipe, load_recipe
from speechjepa.workflow.record import commit, hardware, write_json
from speechjepa.workflow.stages import run_recipe

ROOT = Path(__file__).resolve().parent.parent

COLUMNS = {
    "mboshi-10min": "mboshi/asr_10min.yaml",
    "mboshi-1h": "mboshi/asr_1h.yaml",
    "mboshi-all": "mboshi/asr_all.yaml",
    "cherokee-10min": "cherokee/asr_10min.yaml",
    "cherokee-1h": "cherokee/asr_1h.yaml",
}
UNTRAINED = ("labels_only", "random_frozen")
JEPA = ("pretrain.objective=jepa", "pretrain.jepa.num_masks=1")
PRETRAINED = {
    "reconstruct": ("pretrain.objective=reconstruct", "pretrain.reconstruct.num_masks=1"),
    "contrastive": ("pretrain.objective=contrastive",),
    "jepa_ema": (*JEPA, "pretrain.jepa.regularizer=none"),
    "jepa_sigreg": (*JEPA, "pretrain.jepa.regularizer=sigreg"),
    "jepa_vicreg": (*JEPA, "pretrain.jepa.regularizer=vicreg"),
}
POOL = ("mboshi", "cherokee", "wyandot", "digits", "prompts-en", "prompts-es", "prompts-pt")
# The same for every row: what suits pretrained weights suits fresh ones too (docs/LOG.md).
FINETUNING = ("finetune.layer_decay=1.0", "finetune.freeze_finetune_updates=0.0")


def main(arguments: list[str] | None = None) -> None:
    """Run the cells that are asked for and missing."""
    options = _parse(arguments)
    for seed in options.seeds:
        for row in options.rows:
            cells = [(c, cell_path(options.results, c, row, seed)) for c in options.columns]
            missing = [(column, path) for column, path in cells if not path.exists()]
            if not missing:
                continue
            start = None if row in UNTRAINED else pretrained(options, row, seed)
            for column, path in missing:
                write_json(path, run_cell(options, row, column, seed, start))
                print(path)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = [*UNTRAINED, *PRETRAINED]
    parser.add_argument("--rows", nargs="+", choices=known, default=known)
    parser.add_argument("--columns", nargs="+", choices=list(COLUMNS), default=list(COLUMNS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--budget", type=float, default=20.0, help="minutes of every pretraining (default: 20)"
    )
    parser.add_argument(
        "--finetune_steps", type=int, default=1500, help="of every cell (default: 1500)"
    )
    parser.add_argument("--pool", nargs="+", default=list(POOL), help="corpora (their train split)")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "learning")
    parser.add_argument("--set", nargs="*", default=[], help="settings of every recipe, key=value")
    return parser.parse_args(arguments)


def cell_path(results: Path, column: str, row: str, seed: int) -> Path:
    """Return where a cell's figures are."""
    return results / column / f"{row}-{seed}.json"


def _recipe(options: argparse.Namespace, column: str, settings: list[str]) -> Recipe:
    path = ROOT / "recipes" / COLUMNS[column]
    return load_recipe(path, [*settings, *options.set], data_root=options.data_root)


def pretrained(options: argparse.Namespace, row: str, seed: int) -> Path:
    """Pretrain an encoder, unless that is done, and return its bundle.

    Raises:
        SystemExit: The run in the working folder had another budget or pool.
    """
    folder = options.work / f"{row}-{seed}" / "pretrain"
    asked = {"budget": options.budget, "pool": sorted(options.pool), "set": options.set}
    _same_as_before(folder.parent / "asked.json", asked)
    bundle = folder / "bundle"
    if (bundle / "config.json").exists():
        return bundle
    pool = ", ".join(f"{name}/train" for name in options.pool)
    settings = [f"data.pool=[{pool}]", f"pretrain.minutes={options.budget}", *PRETRAINED[row]]
    settings += ["pretrain.probe_every=0", f"pretrain.seed={seed}"]
    recipe = _recipe(options, options.columns[0], settings)
    assert recipe.pretrain is not None
    return pretrain(
        recipe.pretrain,
        Corpora(recipe.data, folder).pool,
        folder,
        encoder=recipe.encoder,
        cache_dir=options.work / "cache",
    )


def _same_as_before(path: Path, asked: dict[str, Any]) -> None:
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != asked:
            raise SystemExit(f"{path}: this run began with {before}, not {asked}; use another work")
    else:
        write_json(path, asked)


def run_cell(
    options: argparse.Namespace, row: str, column: str, seed: int, start: Path | None
) -> dict[str, Any]:
    """Fine-tune, fit the language model, evaluate on dev, and return the cell's figures."""
    settings = ["pretrain=null", f"finetune.max_steps={options.finetune_steps}", *FINETUNING]
    settings += [f"finetune.seed={seed}"]
    if start is not None:
        settings.append(f"init={start.resolve()}")
    if row == "random_frozen":
        settings.append("finetune.freeze_encoder=true")
    run_dir = options.work / f"{row}-{seed}" / column
    run_recipe(_recipe(options, column, settings), run_dir, cache_dir=options.work / "cache")
    found = json.loads((run_dir / "evaluate" / "results.json").read_text(encoding="utf-8"))
    trained = json.loads(
        (run_dir / "finetune" / "bundle" / "config.json").read_text(encoding="utf-8")
    )["training"]
    account = trained.get("pretrain", {})
    heard, minutes = account.get("audio_hours_seen"), account.get("minutes")
    return {
        "row": row,
        "column": column,
        "seed": seed,
        **{name: found[name] for name in ("cer", "wer", "cer_lm", "wer_lm")},
        "accuracy": None,
        "interval": found.get("cer_interval"),
        "budget_minutes": None if start is None else options.budget,
        "unlabelled_hours": account.get("unlabelled_hours"),
        "audio_hours": heard,
        "audio_hours_per_hour": heard / minutes * 60 if heard and minutes else None,
        "pretraining_steps": account.get("steps"),
        "finetuning_steps": options.finetune_steps,
        "finetuning_minutes": trained["finetune"]["minutes"],
        "parameters": trained["finetune"]["parameters"],
        "device": hardware(),
        "commit": commit(),
    }


if __name__ == "__main__":
    main()
