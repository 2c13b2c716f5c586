"""`speechjepa pretrain | finetune | evaluate`: one stage, from a recipe or from flags."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from speechjepa.cli.check import add_column, columns_of
from speechjepa.cli.run import add_run_options, perform
from speechjepa.errors import ConfigError

SETTING = re.compile(r"[a-z_]+(\.[a-z_]+)*=.*", re.DOTALL)
AFTER_FINETUNE = ("finetune", "language_model", "self_training", "evaluate", "report")


def add_parser(subparsers: Any) -> None:
    """Add the parsers of `pretrain`, `finetune` and `evaluate`."""
    pretrain = subparsers.add_parser(
        "pretrain",
        help="learn an encoder from audio alone",
        description="Pretrain an encoder on every recording below DATA, or as a recipe says.",
        epilog="example: speechjepa pretrain recordings/ --minutes 60 -o runs/encoder",
    )
    pretrain.add_argument(
        "data", nargs="*", metavar="DATA|key.sub=value", help="corpora, and settings on top"
    )
    pretrain.add_argument(
        "--objective",
        choices=("jepa", "contrastive", "reconstruct", "future"),
        help="jepa (default); `future` makes a model for `speechjepa surprise` alone",
    )
    pretrain.add_argument("--minutes", type=float, metavar="N", help="wall-clock budget (minutes)")
    _add_common(pretrain)

    finetune = subparsers.add_parser(
        "finetune",
        help="teach an encoder to spell, from minutes of transcripts",
        description="Fine-tune a pretrained encoder, add a language model, measure on dev.",
        epilog="example: speechjepa finetune --train speech/ --init runs/encoder -o runs/model",
    )
    finetune.add_argument("overrides", nargs="*", metavar="key.sub=value", help="settings on top")
    finetune.add_argument("--train", metavar="DIR", help="corpus with transcripts")
    finetune.add_argument(
        "--labels", help="all (default), a list such as 10min, or '{minutes: 10, seed: 0}'"
    )
    finetune.add_argument(
        "--dev",
        metavar="DIR",
        help="corpus to measure on (default: the dev split, or some labels are held out)",
    )
    finetune.add_argument("--language", metavar="CODE", help="code of the language")
    _add_common(finetune)

    evaluate = subparsers.add_parser(
        "evaluate",
        help="character and word error rates of a model",
        description="Measure a model on transcribed speech, with and without its language model.",
        epilog="example: speechjepa evaluate speech/dev --model runs/model",
    )
    evaluate.add_argument("data", nargs="*", metavar="DATA|key.sub=value", help="corpora")
    evaluate.add_argument("--model", metavar="MODEL", help="bundle folder, or a run's")
    evaluate.add_argument("--split", help="only this split of the corpora")
    add_column(evaluate)
    evaluate.add_argument("--recipe", help="measure the run of this recipe instead")
    add_run_options(evaluate)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe",
        help="take data and settings from this recipe instead (or give its .yaml file alone)",
    )
    parser.add_argument(
        "--init",
        type=Path,
        metavar="MODEL",
        help="bundle to start from, `shipped` or `fresh` (default: the shipped encoder if it fits)",
    )
    add_column(parser)
    parser.add_argument("--preset", metavar="NAME", help="encoder: tiny (default), small, base")
    parser.add_argument("--encoder", choices=("native", "wav2vec2"), help="encoder type")
    parser.add_argument("--seed", type=int, metavar="N", help="default: 0, or the recipe's")
    add_run_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    positional = list(getattr(args, "data", None) or getattr(args, "overrides", None) or [])
    settings = [text for text in positional if SETTING.fullmatch(text) and not Path(text).exists()]
    data = [text for text in positional if text not in settings]
    if args.recipe is None and data and data[0].endswith((".yaml", ".yml")):
        args.recipe = data.pop(0)  # as `speechjepa run` takes it
    if args.recipe is not None:
        return _from_recipe(args, data, settings)
    if args.command == "evaluate":
        return _evaluate(args, data, settings)
    if args.command == "pretrain":
        return _pretrain(args, data, settings)
    if data:
        raise ConfigError(f"'{data[0]}' is not a setting; the labelled corpus is --train {data[0]}")
    return _finetune(args, settings)


def _from_recipe(args: argparse.Namespace, data: list[str], settings: list[str]) -> int:
    from speechjepa.workflow.recipe import load_recipe

    if data:
        raise ConfigError(f"the recipe says which data to use: leave out '{data[0]}'")
    _refuse(args, ("objective", "minutes", "init", "preset", "encoder"))
    _refuse(args, ("train", "labels", "dev", "language", "model", "split"))
    if args.column:
        raise ConfigError(
            "--column and --recipe exclude each other; say `columns: {text: TIER}` of a corpus in "
            "the recipe"
        )
    if getattr(args, "seed", None) is not None:
        settings.append(f"seed={args.seed}")
    recipe = load_recipe(args.recipe, settings, args.data_root)
    return perform(recipe, args, AFTER_FINETUNE if args.command == "finetune" else (args.command,))


def _refuse(args: argparse.Namespace, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(args, name, None) is not None:
            raise ConfigError(
                f"--{name} and --recipe exclude each other; change the recipe's setting by "
                "`key.sub=value`, for example pretrain.minutes=30"
            )


def _pretrain(args: argparse.Namespace, data: list[str], settings: list[str]) -> int:
    if not data:
        raise ConfigError("say which audio to learn from: speechjepa pretrain DATA ... -o OUT")
    section = {"objective": args.objective, "minutes": args.minutes}
    status = perform(
        _recipe(
            args,
            settings,
            data={"pool": [_located(text, args) for text in data]},
            pretrain={key: value for key, value in section.items() if value is not None},
            finetune=None,
        ),
        args,
        ("pretrain",),
    )
    return _say_bundle(status, args.run_dir / "pretrain" / "bundle")


def _finetune(args: argparse.Namespace, settings: list[str]) -> int:
    from speechjepa.config import parse_yaml

    if args.train is None:
        raise ConfigError("say where the transcripts are: speechjepa finetune --train DIR -o OUT")
    data = {
        "train": _located(args.train, args),
        "labels": parse_yaml(args.labels or "all", where="--labels"),
        "dev": None if args.dev is None else _located(args.dev, args),
    }
    recipe = _recipe(args, settings, data=data, language=args.language, pretrain=None)
    status = perform(recipe, args, AFTER_FINETUNE)
    last = "finetune" if recipe.self_training is None else "self_training"
    return _say_bundle(status, args.run_dir / last / "bundle")


def _recipe(args: argparse.Namespace, settings: list[str], **sections: Any) -> Any:
    """Make a recipe of flags."""
    from speechjepa.workflow.recipe import build_recipe

    if args.run_dir is None:
        raise ConfigError("say where to put the result: -o OUT")
    encoder = {"type": args.encoder, "preset": args.preset}
    name = re.sub(r"[^\w.-]+", "-", args.run_dir.resolve().name) or args.command
    mapping = {"name": name, "seed": args.seed or 0, **sections}
    mapping["encoder"] = {key: value for key, value in encoder.items() if value is not None}
    if args.init is not None:
        mapping["init"] = str(args.init)
    return build_recipe(mapping, settings, args.data_root, where=f"speechjepa {args.command}")


def _located(text: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return a corpus given on the command line: it is here, or below the data root."""
    elsewhere = args.data_root is not None and not Path(text).exists()
    if not text.startswith("hf:") and not elsewhere:
        text = str(Path(text).resolve())
    return {"location": text, "columns": columns_of(args) or None}


def _say_bundle(status: int, bundle: Path) -> int:
    if status == 0:
        print(bundle)
    return status


def _evaluate(args: argparse.Namespace, data: list[str], settings: list[str]) -> int:
    if args.model is None or not data or settings:
        raise ConfigError("say what to measure on what: speechjepa evaluate --model MODEL DATA")
    from speechjepa.data.readers import read_corpus
    from speechjepa.inference.evaluate import evaluate, refuse_foreign_files
    from speechjepa.inference.model import load
    from speechjepa.inference.output_folder import prepare_folder
    from speechjepa.models.bundle import default_device
    from speechjepa.workflow.outcome import rates_text

    if args.run_dir is not None:
        prepare_folder(args.run_dir, "results")
        refuse_foreign_files(args.run_dir)
    model = load(args.model, device=default_device())
    utterances = [
        utterance
        for location in data
        for utterance in read_corpus(
            location, split=args.split, columns=columns_of(args), data_root=args.data_root
        )
    ]
    found = evaluate(model, utterances, out_dir=args.run_dir)
    print(f"{found.results['num_utterances']} utterances: {rates_text(found.results)}")
    return 0
