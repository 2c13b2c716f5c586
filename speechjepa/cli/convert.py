"""`speechjepa convert`: published checkpoints in, and out again."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speechjepa.models.bundle import Bundle

EPILOG = """\
SRC is one of
  a folder or run of this project;
  a folder of transformers, or the hub's OWNER/NAME: Wav2Vec2, XLS-R, MMS (say --language), HuBERT,
  WavLM, data2vec-audio, for pretraining, encoder only, and CTC; not Wav2Vec2-BERT, whose input and
  blocks are others;
  a checkpoint file of fairseq or torchaudio (.pt, .pth, .bin, .safetensors): wav2vec 2.0, HuBERT,
  WavLM. The symbols of a CTC head come from dict.ltr.txt or vocab.json beside the file.
Nothing in a checkpoint is executed. Every command takes such a SRC as its model too, and training
as its --init (what is on the hub has to be converted first); converting saves the reading.

  speechjepa convert facebook/mms-1b-all mms-swahili --language swh
  speechjepa convert xlsr_53_56k.pt xlsr
  speechjepa convert runs/my_language for_transformers --to hf
  speechjepa convert runs/my_language for_onnxruntime --to onnx --int8

What an onnx model takes and gives, with an example, is in docs/ONNX.md.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `convert` command."""
    parser = subparsers.add_parser(
        "convert",
        help="read a published checkpoint, or write a model for transformers or onnxruntime",
        description="Turn a model into a bundle of this project, into a folder that transformers "
        "loads, or into one model.onnx.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", metavar="SRC", help="folder, run, checkpoint file, or OWNER/NAME of the hub"
    )
    parser.add_argument("target", metavar="DST", type=Path, help="folder to write; must be new")
    parser.add_argument(
        "--to",
        choices=("bundle", "hf", "onnx"),
        default="bundle",
        help="what to write: this project's format, transformers', or onnx (default: bundle)",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="with --to onnx: weights of the blocks in 8 bits, about a third of the size",
    )
    parser.add_argument("--language", metavar="CODE", help="which adapter, where there are several")
    parser.add_argument(
        "--heads",
        type=int,
        metavar="N",
        help="attention heads of a checkpoint file; needed where it does not say and no published "
        "model is as wide",
    )


def run(args: argparse.Namespace) -> int:
    """Write the folder; return 0."""
    from speechjepa.errors import ConfigError, DataError
    from speechjepa.models.bundle import save_bundle
    from speechjepa.models.published_write import write_published

    if args.int8 and args.to != "onnx":
        raise ConfigError("--int8 goes with --to onnx")
    target: Path = args.target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError("is there already; name another folder", path=target)
    bundle = _read(args)
    if args.to == "hf":
        write_published(bundle, target)
    elif args.to == "onnx":
        from speechjepa.models.export_onnx import write_onnx

        report = write_onnx(bundle, target, int8=args.int8)
        print(
            f"{report.megabytes:.1f} MB; onnxruntime's output on test tones differs by at most "
            f"{report.difference:.2g}, {report.same_frames:.1%} of its frames have the same best "
            "symbol",
            file=sys.stderr,
        )
    else:
        save_bundle(bundle, target)
    _bring_along(bundle, target if args.to == "bundle" else None)
    print(target)
    return 0


BESIDE = {
    "lm.arpa": "the language model",
    "decoder.json": "the settings of the beam search",
    "language.safetensors": "what tells its languages apart",
    "translator": "the translator",
    "units": "the units that it writes",
    "voice": "the voice that speaks them",
    "retrieval": "the utterances whose translation it knows",
}
"""Files and folders of a bundle beside the model, which only this project reads."""


def _bring_along(bundle: Bundle, target: Path | None) -> None:
    """Copy what lies beside the model; say what stays behind where there is nowhere to copy to."""
    for name, what in BESIDE.items():
        if bundle.path is None or not (bundle.path / name).exists():
            continue
        if target is None:
            print(f"left behind: {what}, {bundle.path / name}", file=sys.stderr)
        elif (bundle.path / name).is_dir():
            shutil.copytree(bundle.path / name, target / name)
        else:
            shutil.copyfile(bundle.path / name, target / name)


def _read(args: argparse.Namespace) -> Bundle:
    from speechjepa.errors import ConfigError, ModelError
    from speechjepa.inference.model import load
    from speechjepa.models.published_files import read_checkpoint_file
    from speechjepa.text.languages import match_language

    source = Path(args.source)
    if args.heads is not None:
        if not source.is_file():
            raise ConfigError("--heads goes with a checkpoint file, of fairseq or torchaudio")
        return read_checkpoint_file(source, args.heads)
    bundle = load(source, language=args.language).bundle
    if args.language is not None and match_language(args.language, bundle.languages) is None:
        known = ", ".join(bundle.languages) or "no language that it names"
        raise ModelError(
            f"{source}: writes {known}, not {args.language!r}, and there is nothing to choose; "
            "leave --language out"
        )
    return bundle
