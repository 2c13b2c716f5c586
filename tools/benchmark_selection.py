"""Are minutes chosen by `speechjepa select` better labels than minutes drawn at random?

    python tools/benchmark_selection.py --data-root DATA --work runs/selection --seeds 0 1 2

Both start from the shipped encoder and are fine-tuned alike, on ten minutes of mboshi/train; only
the list of labels differs. Writes results/selection.json once every run is there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from speechjepa.data.readers import read_corpus
from speechjepa.inference.model import load
from speechjepa.inference.select import SelectOptions, select
from speechjepa.models.shipped import shipped_encoder, shipped_version
from speechjepa.workflow.recipe import load_recipe
from speechjepa.workflow.record import make_record, write_json
from speechjepa.workflow.stages import run_recipe

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "mboshi" / "asr_10min.yaml"
MINUTES = 10


def main() -> None:
    """Run what is missing, and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--finetune_steps", type=int, default=700)
    parser.add_argument("--model", type=Path, help="encoder to choose with and to start from")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "selection.json")
    args = parser.parse_args()
    args.model = (args.model or shipped_encoder()).resolve()
    rates: dict[str, list[float]] = {"random": [], "selected": []}
    characters: dict[str, list[int]] = {"random": [], "selected": []}
    for seed in args.seeds:
        lists = {"random": f"{{minutes: {MINUTES}, seed: {seed}}}", "selected": propose(args, seed)}
        for name, labels in lists.items():
            cer, count = cell(args, f"{name}-{seed}", labels, seed)
            rates[name].append(cer)
            characters[name].append(count)
            print(name, seed, f"{100 * cer:.1f} % CER, {count} characters", flush=True)
    means = {name: float(np.mean(values)) for name, values in rates.items()}
    record = make_record(
        what="selection: dev CER after labelling 10 chosen minutes, relative to 10 random ones",
        figure=100 * (means["selected"] / means["random"] - 1),
        unit="% relative",
        command="python tools/benchmark_selection.py --data-root DATA --work runs/selection "
        f"--finetune_steps {args.finetune_steps}",
        seed=None,
        seeds=args.seeds,
        shipped_encoder=shipped_version(),
        cer=rates,
        characters_of_labels=characters,
        finetune_steps=args.finetune_steps,
    )
    write_json(args.output, record)
    print(record)


def propose(args: argparse.Namespace, seed: int) -> str:
    """Return the path of a list of ids chosen with this seed."""
    path: Path = args.work.resolve() / f"selected-{seed}.txt"
    if not path.exists():
        utterances = read_corpus(str(args.data_root / "mboshi" / "train"))
        options = SelectOptions(minutes=MINUTES, seed=seed, include_transcribed=True)
        found = select(load(args.model), utterances, options)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{c.heard.utterance.id}\n" for c in found.chosen), "utf-8")
    return str(path)


def cell(args: argparse.Namespace, name: str, labels: str, seed: int) -> tuple[float, int]:
    """Fine-tune on a list; return the dev CER and how many characters the labels have."""
    run_dir = args.work.resolve() / name
    settings = [f"data.labels={labels}", "pretrain=null", "language_model=null"]
    settings += ["self_training=null", "finetune.streaming=null"]  # what the labels give alone
    settings += [f"init={args.model}", f"seed={seed}"]
    settings += [f"finetune.max_steps={args.finetune_steps}"]
    recipe = load_recipe(RECIPE, settings, data_root=args.data_root)
    run_recipe(recipe, run_dir, cache_dir=args.work.resolve() / "cache")
    results = json.loads((run_dir / "evaluate" / "results.json").read_text("utf-8"))
    ids = set((run_dir / "labels.txt").read_text("utf-8").split())
    texts = [
        u.text or "" for u in read_corpus(str(args.data_root / "mboshi" / "train")) if u.id in ids
    ]
    return float(results["cer"]), sum(map(len, texts))


if __name__ == "__main__":
    main()
