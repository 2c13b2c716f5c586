"""Compare what pretraining is worth: one network, one pool, one budget, several objectives.

    OMP_NUM_THREADS=1 python tools/benchmark_learning.py --data-root DATA --work runs/learning \\
        --rows labels_only jepa_ema contrastive --columns mboshi-10min --seeds 0 --budget 20

Every row that pretrains does so once per seed, for the same minutes on the same pool, and serves
every column. `shipped` is fine-tuned from the encoder that comes with the package, `shipped_jepa`
pretrained further from it, and `best` is the recipe as it stands, with self-training.
`transformers` is the outside row, see tools/learning_transformers.py: its `Wav2Vec2ForPreTraining`
for the same minutes, fine-tuned for `--outside_minutes`, in which it takes fewer steps than the
others. The column digits-2min leaves one speaker out at a time: six runs, and `accuracy` is the
share of digits whose word fits best of the ten; the row `best` hears what that speaker says in
train, without transcripts, as it hears the others. What the frozen encoders of these runs tell
apart (a linear probe, RankMe, ABX) is measured by tools/benchmark_representation.py.

A cell is one JSON file, `results/learning/COLUMN/ROW-SEED.json`; those of another budget are in
a folder of their own (`--results results/learning/minutes45 --budget 45`, with the rows that
pretrain alone). Cells that exist are not run again; runs that were interrupted go on where they
stopped. `pretraining_flops` is the audio heard times the FLOPs that the objective takes for a
second of it (tools/pretraining_flops.py);

    python tools/benchmark_learning.py --account

adds it to cells that were measured before it was counted: nothing is trained or read.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechjepa.audio.files import read_audio
from speechjepa.config import to_dict
from speechjepa.data.readers import read_corpus, write_manifest
from speechjepa.data.utterance import Utterance
from speechjepa.inference.evaluate import evaluate
from speechjepa.inference.model import SpeechModel, load
from speechjepa.models.shipped import shipped_version
from speechjepa.training.callbacks import start_encoder
from speechjepa.training.head_start import DROPOUT
from speechjepa.training.pretrain import pretrain
from speechjepa.workflow.corpora import Corpora
from speechjepa.workflow.recipe import Recipe, load_recipe
from speechjepa.workflow.record import commit, hardware, write_json
from speechjepa.workflow.run import load_state
from speechjepa.workflow.stages import run_recipe
from speechjepa.workflow.start import starting_bundle

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # run as a program
    sys.path.insert(0, str(ROOT))

from tools.learning_transformers import pretrain_transformers, read_account  # noqa: E402
from tools.pretraining_flops import objective_rate, transformers_rate  # noqa: E402

COLUMNS = {
    "mboshi-10min": "mboshi/asr_10min.yaml",
    "mboshi-1h": "mboshi/asr_1h.yaml",
    "mboshi-all": "mboshi/asr_all.yaml",
    "cherokee-10min": "cherokee/asr_10min.yaml",
    "cherokee-1h": "cherokee/asr_1h.yaml",
    "digits-2min": "digits/asr_2min.yaml",
}
STARTS = {
    **{"labels_only": "fresh", "random_frozen": "fresh"},
    **{"shipped": "shipped", "best": "shipped"},
}
"""Rows without pretraining of their own, and the `init` of their fine-tuning."""
MORE = {"random_frozen": ["finetune.freeze_encoder=true"]}
"""What rows set beside the settings of all."""
JEPA = ("pretrain.objective=jepa", "pretrain.jepa.num_masks=1")
PRETRAINED = {
    "reconstruct": ("pretrain.objective=reconstruct", "pretrain.reconstruct.num_masks=1"),
    "contrastive": ("pretrain.objective=contrastive",),
    "jepa_ema": (*JEPA, "pretrain.jepa.regularizer=none"),
    "jepa_sigreg": (*JEPA, "pretrain.jepa.regularizer=sigreg"),
    "jepa_vicreg": (*JEPA, "pretrain.jepa.regularizer=vicreg"),
    "shipped_jepa": (*JEPA, "pretrain.jepa.regularizer=none", "init=shipped"),
    "transformers": (),  # its objective and encoder are its own
}
POOL = ("mboshi", "cherokee", "wyandot", "digits", "prompts-en", "prompts-es", "prompts-pt")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NO_PRETRAINING = "pretrain=null"
FRONT_END = "encoder.normalization_prior_seconds=1.0"
"""That of the shipped encoder, for every row that learns from fresh weights, too."""
# The same for every row: what suits pretrained weights suits fresh ones too (docs/LOG.md).
FINETUNING = ("finetune.layer_decay=1.0", "finetune.freeze_finetune_updates=0.0")
# And for every row but `best`: begun before weights were averaged and the pitch was heard.
PLAIN = (*FINETUNING, "finetune.average_decay=0.0", "finetune.pitch=false")


def main(arguments: list[str] | None = None) -> None:
    """Run the cells that are asked for and missing."""
    options = _parse(arguments)
    if options.account:
        account(options)
        return
    for seed in options.seeds:
        for row in options.rows:
            cells = [(c, cell_path(options.results, c, row, seed)) for c in options.columns]
            missing = [(column, path) for column, path in cells if not path.exists()]
            if not missing:
                continue
            start = STARTS.get(row) or str(pretrained(options, row, seed).resolve())
            for column, path in missing:
                run = digits_cell if column == "digits-2min" else run_cell
                write_json(path, run(options, row, column, seed, start))
                print(path, flush=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = [*STARTS, *PRETRAINED]
    parser.add_argument("--rows", nargs="+", choices=known, default=known)
    parser.add_argument("--columns", nargs="+", choices=list(COLUMNS), default=list(COLUMNS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--budget", type=float, default=20.0, help="minutes of every pretraining (default: 20)"
    )
    parser.add_argument(
        "--finetune_steps", type=int, default=1500, help="of every cell (default: 1500)"
    )
    parser.add_argument(
        "--outside_minutes",
        type=float,
        default=8.0,
        help="of every fine-tuning of the row transformers, with at most --finetune_steps; the "
        "others take about 8 on one core for 10 minutes of labels, 0.8 a fold of digits-2min "
        "(default: 8)",
    )
    parser.add_argument("--pool", nargs="+", default=list(POOL), help="corpora (their train split)")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--work", type=Path, help="folder of the runs")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "learning")
    parser.add_argument("--set", nargs="*", default=[], help="settings of every recipe, key=value")
    parser.add_argument(
        "--account",
        action="store_true",
        help="only add pretraining_flops to the cells in --results that lack it",
    )
    options = parser.parse_args(arguments)
    if options.account:
        options.data_root = options.data_root or ROOT  # settings name it; nothing is read from it
    elif options.data_root is None or options.work is None:
        parser.error("--data-root and --work are required, except with --account")
    return options


def cell_path(results: Path, column: str, row: str, seed: int) -> Path:
    """Return where a cell's figures are."""
    return results / column / f"{row}-{seed}.json"


def _recipe(options: argparse.Namespace, column: str, settings: list[str]) -> Recipe:
    path = ROOT / "recipes" / COLUMNS[column]
    # Settings of the pretraining, asked for by --set, must not bring it back into a cell.
    last = [setting for setting in settings if setting == NO_PRETRAINING]
    settings = [FRONT_END, *settings, *options.set, *last]
    return load_recipe(path, settings, data_root=options.data_root)


def pretrained(options: argparse.Namespace, row: str, seed: int) -> Path:
    """Pretrain an encoder, unless that is done, and return its bundle.

    Raises:
        SystemExit: The run in the working folder had another budget or pool, or other settings.
    """
    folder = options.work / f"{row}-{seed}" / "pretrain"
    recipe = _pretraining_recipe(options, row, seed)
    assert recipe.pretrain is not None
    asked = {"budget": options.budget, "pool": sorted(options.pool), "set": options.set}
    # A later version's defaults are another pretraining.
    _same_as_before(folder.parent / "asked.json", asked | {"pretrain": to_dict(recipe.pretrain)})
    bundle = folder / "bundle"
    if (bundle / "config.json").exists():
        return bundle
    pool_audio, cache_dir = Corpora(recipe.data, folder).pool, options.work / "cache"
    if row == "transformers":
        return pretrain_transformers(recipe.pretrain, pool_audio, folder, cache_dir=cache_dir)
    return pretrain(
        recipe.pretrain,
        pool_audio,
        folder,
        encoder=recipe.encoder,
        init=starting_bundle(recipe),
        cache_dir=cache_dir,
    )


def _pretraining_recipe(options: argparse.Namespace, row: str, seed: int) -> Recipe:
    pool = ", ".join(f"{name}/train" for name in options.pool)
    settings = ["init=fresh", f"data.pool=[{pool}]", f"pretrain.minutes={options.budget}"]
    settings += PRETRAINED[row]
    settings += ["pretrain.probe_every=0", f"pretrain.seed={seed}"]
    return _recipe(options, options.columns[0], settings)


def flops_rate(options: argparse.Namespace, row: str) -> float:
    """Return the FLOPs that the pretraining of a row takes per second of audio."""
    recipe = _pretraining_recipe(options, row, seed=0)
    assert recipe.pretrain is not None
    if row == "transformers":
        return transformers_rate(recipe.pretrain)
    return objective_rate(recipe.pretrain, start_encoder(recipe.encoder, starting_bundle(recipe)))


def account(options: argparse.Namespace) -> None:
    """Add `pretraining_flops` to the cells that lack it, null where nothing was pretrained."""
    rates: dict[str, float] = {}
    for path in sorted(options.results.rglob("*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        if "pretraining_flops" in cell:
            continue
        row, heard = cell["row"], cell["audio_hours"]
        if heard is not None and row not in rates:
            rates[row] = flops_rate(options, row)
        flops = None if heard is None else round(3600 * heard * rates[row])
        filled: dict[str, Any] = {}
        for name, value in cell.items():
            filled[name] = value
            if name == "pretraining_steps":  # beside it, as in a cell that is measured now
                filled["pretraining_flops"] = flops
        write_json(path, filled)
        print(path, flush=True)


def _same_as_before(path: Path, asked: dict[str, Any]) -> None:
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != asked:
            raise SystemExit(f"{path}: this run began with {before}, not {asked}; use another work")
    else:
        write_json(path, asked)


def run_cell(
    options: argparse.Namespace, row: str, column: str, seed: int, start: str
) -> dict[str, Any]:
    """Fine-tune, fit the language model, evaluate on dev, and return the cell's figures."""
    run_dir = options.work / f"{row}-{seed}" / column
    settings = _finetuning(options, row, seed, start)
    run_recipe(_recipe(options, column, settings), run_dir, cache_dir=options.work / "cache")
    found = json.loads((run_dir / "evaluate" / "results.json").read_text(encoding="utf-8"))
    cell = _cell(options, row, column, seed, run_dir)
    rates = {name: found[name] for name in ("cer", "wer", "cer_lm", "wer_lm")}
    return {**cell, **rates, "interval": found.get("cer_interval")}


def _finetuning(options: argparse.Namespace, row: str, seed: int, start: str) -> list[str]:
    if row == "best":
        return [NO_PRETRAINING, f"finetune.seed={seed}", f"init={start}", *FINETUNING]
    settings = [NO_PRETRAINING, "self_training=null", "finetune.streaming=null"]
    settings += [f"finetune.max_steps={options.finetune_steps}", *PLAIN]
    settings += [f"finetune.seed={seed}", f"init={start}"]
    if row == "transformers":
        settings += [f"finetune.minutes={options.outside_minutes}"]
    return settings + MORE.get(row, [])


def _cell(
    options: argparse.Namespace, row: str, column: str, seed: int, run_dir: Path
) -> dict[str, Any]:
    """Return what a cell says about its run, its rates still unknown."""
    rounds = sorted(run_dir.glob("self_training/round*/bundle"))
    trainings = [
        json.loads((bundle / "config.json").read_text(encoding="utf-8"))["training"]
        for bundle in (run_dir / "finetune" / "bundle", *rounds)
    ]
    trained = trainings[0]
    encoder = _encoder_settings(run_dir / "finetune" / "bundle")
    taken = trained.get("pretrain", {}) if row in PRETRAINED else {}
    if row == "transformers":
        taken = read_account(options.work / f"{row}-{seed}" / "pretrain" / "bundle")
    heard, minutes = taken.get("audio_hours_seen"), taken.get("minutes")
    unlabelled = taken.get("unlabelled_hours")
    if rounds:
        figures = load_state(run_dir)["self_training"].figures
        unlabelled = figures["unlabelled_minutes"] / 60
    return {
        "row": row,
        "column": column,
        "seed": seed,
        **dict.fromkeys(("cer", "wer", "cer_lm", "wer_lm", "accuracy", "interval")),
        "budget_minutes": options.budget if row in PRETRAINED else None,
        "unlabelled_hours": unlabelled,
        "audio_hours": heard,
        "audio_hours_per_hour": heard / minutes * 60 if heard and minutes else None,
        "pretraining_steps": taken.get("steps"),
        "pretraining_flops": round(3600 * heard * flops_rate(options, row)) if heard else None,
        "finetuning_steps": trained["finetune"].get("steps", options.finetune_steps),
        "finetuning_minutes": sum(each["finetune"]["minutes"] for each in trainings),
        "parameters": trained["finetune"]["parameters"],
        "set": options.set,
        "shipped_encoder": shipped_version() if row.startswith(("shipped", "best")) else None,
        "normalization_prior_seconds": encoder.get("normalization_prior_seconds"),
        "pitch": encoder.get("pitch", False),
        "head_dropout": DROPOUT,
        "blank_levelled": True,  # of a new head; cells that lack it are of earlier commits
        "device": hardware(),
        "commit": commit(),
    }


def _encoder_settings(bundle: Path) -> dict[str, Any]:
    """Return a model's settings of the encoder; a published one has some of its own."""
    return json.loads((bundle / "config.json").read_text(encoding="utf-8"))["encoder"]


def digits_cell(
    options: argparse.Namespace, row: str, column: str, seed: int, start: str
) -> dict[str, Any]:
    """Fine-tune on five speakers' digits and measure on the sixth's, six times.

    Error rates are means over utterances of their folds'.
    """
    root = options.data_root / "digits"
    train, dev = (read_corpus(str(root / split)) for split in ("train", "dev"))
    two_minutes = set((root / "train" / "2min.txt").read_text("utf-8").split())
    right: list[float] = []
    rates: list[tuple[float | None, ...]] = []
    for speaker in sorted({str(u.speaker) for u in dev}):
        run_dir = options.work / f"{row}-{seed}" / f"{column}-{speaker}"
        folds = digits_fold(train, dev, two_minutes, speaker, teaches_itself=row == "best")
        for split, utterances in folds.items():
            write_manifest(utterances, run_dir / f"{split}.jsonl", overwrite=True)
        settings = _finetuning(options, row, seed, start)
        settings += [f"data.train={(run_dir / 'train.jsonl').resolve()}", "data.labels=all"]
        settings += [f"data.dev={(run_dir / 'dev.jsonl').resolve()}"]
        if row != "best":
            settings += ["language_model=null"]
            # The digits outside speak for themselves: the step with the best dev CER is not sought.
            settings += [f"finetune.evaluate_every={options.finetune_steps}"]
        recipe = _recipe(options, column, settings)
        run_recipe(recipe, run_dir, cache_dir=options.work / "cache")
        model = load(run_dir / ("self_training" if row == "best" else "finetune") / "bundle")
        outside = [u for u in dev if u.speaker == speaker]
        right += [float(best_word(model, u) == u.text) for u in outside]
        found = evaluate(model, outside)
        rates += [(found.cer, found.wer, found.cer_lm, found.wer_lm)] * len(outside)
    means = [
        None if None in each else float(np.mean([rate for rate in each if rate is not None]))
        for each in zip(*rates, strict=True)
    ]
    draws = np.random.default_rng(0).choice(right, (2000, len(right))).mean(axis=1)
    cell = _cell(options, row, column, seed, run_dir)
    bounds = [float(bound) for bound in np.percentile(draws, [2.5, 97.5])]
    cell |= dict(zip(("cer", "wer", "cer_lm", "wer_lm"), means, strict=True))
    return {**cell, "accuracy": float(np.mean(right)), "interval": bounds}


def digits_fold(
    train: list[Utterance],
    dev: list[Utterance],
    labelled: set[str],
    speaker: str,
    *,
    teaches_itself: bool,
) -> dict[str, list[Utterance]]:
    """Return the train and dev utterances of the fold that leaves a speaker out.

    A model that teaches itself hears all of train, what the speaker said there included, without
    its transcripts; its steps and its language model are chosen on the other speakers' dev.
    """
    known = [u for u in train if u.speaker != speaker and u.id in labelled]
    if not teaches_itself:
        return {"train": known, "dev": [u for u in dev if u.speaker == speaker]}
    ids = {u.id for u in known}
    heard = [replace(u, text=None) for u in train if u.id not in ids]
    return {"train": known + heard, "dev": [u for u in dev if u.speaker != speaker]}


def best_word(model: SpeechModel, utterance: Utterance) -> str:
    """Return the digit whose spelling has the lowest CTC loss, of the ten."""
    wave = read_audio(utterance.audio_path, sample_rate=model.sample_rate, start=utterance.start)
    logits, lengths = model.logits(torch.from_numpy(wave)[None])
    spellings = [torch.tensor(model.vocabulary.encode(word)) for word in DIGITS]
    costs = [
        torch.nn.functional.ctc_loss(
            logits.float().log_softmax(-1).transpose(0, 1),
            ids[None],
            lengths,
            torch.tensor([len(ids)]),
            reduction="sum",
        )
        for ids in spellings
    ]
    return DIGITS[int(torch.stack(costs).argmin())]


if __name__ == "__main__":
    main()
