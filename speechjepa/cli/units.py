"""`speechjepa units`: speech as a sequence of kinds of sound, without any text."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from speechjepa.cli.check import add_column, columns_of

if TYPE_CHECKING:
    from speechjepa.inference.units import UnitSequence
    from speechjepa.units.kmeans import Layer

EPILOG = """\
  speechjepa units fit recordings/ --num_units 100 -o units
  speechjepa units apply interview.wav --units units -o spoken
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `units` command."""
    parser = subparsers.add_parser(
        "units",
        help="find kinds of sound in recordings (fit), and write recordings in them (apply)",
        description="Group the frames of an encoder into units by k-means, and write recordings "
        "as sequences of them: what speech is translated to, and voices are made of.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="fit|apply", required=True)
    fit = actions.add_parser("fit", help="find units in recordings")
    fit.add_argument("data", nargs="+", metavar="DATA", help="folders, manifests or hf:NAME")
    _add_model(fit)
    fit.add_argument(
        "--layer",
        metavar="L",
        help="0 = input of the first block, n = output of the n-th, mel = log-mel frames without "
        "encoder (default: two thirds up)",
    )
    fit.add_argument(
        "--num_units", "--num-units", type=int, default=100, metavar="K", help="how many (100)"
    )
    fit.add_argument("--seed", type=int, default=0, help="of k-means (0)")
    fit.add_argument(
        "--phases",
        type=int,
        default=1,
        metavar="N",
        help="hear everything N times, each a part of a frame later: N times the frames (1)",
    )
    fit.add_argument(
        "--change_penalty",
        "--change-penalty",
        type=float,
        default=0.0,
        metavar="P",
        help="what a change of unit costs: more = fewer, longer units (0)",
    )
    fit.add_argument("--split", help="only this split of the data")
    fit.add_argument("--format", default="auto", help="format of the data (default: look at it)")
    add_column(fit)
    fit.add_argument("--data-root", type=Path, help="folder that paths are relative to")
    fit.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="a folder")
    fit.add_argument("--overwrite", action="store_true", help="replace units that are there")
    apply = actions.add_parser(
        "apply",
        help="write recordings in units",
        description="Write each recording as units, each once with how many frames it lasts. "
        "Without -o, one line of JSON per recording goes to stdout.",
        epilog="Exit status: 0 when every file was heard (or is there already), 1 when one could "
        "not be.",
    )
    apply.add_argument("inputs", nargs="+", metavar="FILE|FOLDER", help="audio, or folders of it")
    apply.add_argument("--units", type=Path, required=True, metavar="U", help="from `units fit`")
    _add_model(apply)
    apply.add_argument(
        "-o", "--output_dir", "--output-dir", dest="output_dir", type=Path, metavar="OUT"
    )
    apply.add_argument(
        "-f",
        "--output_format",
        "--output-format",
        dest="output_format",
        choices=("json", "tsv"),
        default="json",
        help="of the files in OUT: json (default), or tsv with a line per unit and its times",
    )
    apply.add_argument("--overwrite", action="store_true", help="replace files that are there")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="shipped", metavar="M", help="a bundle, or a run (default: shipped)"
    )


def run(args: argparse.Namespace) -> int:
    """Run one of the two."""
    return _fit(args) if args.action == "fit" else _apply(args)


def _fit(args: argparse.Namespace) -> int:
    from speechjepa.data.readers import read_corpus
    from speechjepa.errors import DataError
    from speechjepa.inference.model import load
    from speechjepa.inference.output_folder import prepare_folder
    from speechjepa.inference.units import fit
    from speechjepa.progress import audio_bar
    from speechjepa.units.kmeans import SETTINGS_FILE

    if (args.output / SETTINGS_FILE).exists() and not args.overwrite:
        raise DataError("holds units already; --overwrite replaces them", path=args.output)
    prepare_folder(args.output, "units")
    model = load(args.model)
    default = round(2 / 3 * model.encoder.num_layers)
    layer = default if args.layer is None else _layer(args.layer)
    utterances = [
        utterance
        for location in args.data
        for utterance in read_corpus(
            location,
            format=args.format,
            split=args.split,
            columns=columns_of(args),
            data_root=args.data_root,
        )
    ]
    with audio_bar("listening", len(utterances)) as progress:
        units, skipped = fit(
            model,
            utterances,
            layer=layer,
            num_units=args.num_units,
            seed=args.seed,
            phases=args.phases,
            change_penalty=args.change_penalty,
            progress=progress,
        )
    for item in skipped:
        print(f"left out: {item.audio_path}: {item.reason}", file=sys.stderr)
    units.save(args.output)
    print(f"{units.num_units} units of layer {layer}, {units.frame_rate:g} a second: {args.output}")
    return 0


def _layer(text: str) -> Layer:
    from speechjepa.errors import ConfigError

    if text == "mel":
        return "mel"
    if not text.isdecimal():
        raise ConfigError(f"--layer must be mel or a number, but is {text!r} instead")
    return int(text)


def _apply(args: argparse.Namespace) -> int:
    import torch

    from speechjepa.audio.files import read_audio
    from speechjepa.data.readers.common import as_line
    from speechjepa.errors import DataError, SpeechJepaError
    from speechjepa.inference.model import load
    from speechjepa.inference.output_folder import prepare_folder, tell_kept
    from speechjepa.inference.transcribe_files import find_recordings
    from speechjepa.inference.units import UnitSequence, check_encoder, check_layer, encode_units
    from speechjepa.units.kmeans import load_units

    if args.output_dir is not None:
        prepare_folder(args.output_dir, "units")
    units = load_units(args.units)
    model = load(args.model)
    check_encoder(model, units)
    check_layer(model, units.layer)
    failed = 0
    kept: list[Path] = []
    for recording in find_recordings(args.inputs):
        try:
            if recording.problem is not None:
                raise DataError(recording.problem, path=recording.path)
            target = None
            if args.output_dir is not None:
                name = f"{recording.name.name}.{args.output_format}"
                target = args.output_dir / recording.name.with_name(name)
                if target.exists() and not args.overwrite:
                    kept.append(target)
                    continue
            waveform = torch.from_numpy(read_audio(recording.path, sample_rate=model.sample_rate))
            found = UnitSequence.of(encode_units(model, units, waveform), units.frame_seconds)
            _write(found, units.checksum, recording.path, target, args.output_format)
        except SpeechJepaError as error:
            failed += 1
            print(f"error: {as_line(str(error))}", file=sys.stderr)
    tell_kept(kept)
    if failed:
        print(f"files that could not be heard: {failed}", file=sys.stderr)
    return 1 if failed else 0


def _write(found: UnitSequence, checksum: str, path: Path, target: Path | None, kind: str) -> None:
    if kind == "tsv" and target is not None:
        rows = zip(found.units, found.times(), strict=True)
        lines = ["unit\tstart\tend", *(f"{u}\t{start:.3f}\t{end:.3f}" for u, (start, end) in rows)]
    else:
        entry = {
            "file": str(path),
            "frame_seconds": found.frame_seconds,
            "units": found.units,
            "durations": found.durations,
            "units_checksum": checksum,
        }
        lines = [json.dumps(entry, ensure_ascii=False)]
    if target is None:
        print(lines[0])
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
