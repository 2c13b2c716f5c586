"""`speechjepa check`: the data doctor on the command line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speechjepa.data.check import CheckOptions
    from speechjepa.data.findings import Finding
    from speechjepa.data.utterance import Utterance

EPILOG = """\
DATA is a folder of recordings, a manifest file or hf:NAME; `train=PATH dev=PATH` names splits.

exit status: 0 nothing would break training, 1 something would, 2 the data cannot be read

  speechjepa check recordings/
  speechjepa check train=corpus/train dev=corpus/dev --write manifest.jsonl
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `check` command."""
    parser = subparsers.add_parser(
        "check",
        help="say what is wrong with recordings and transcripts, before training",
        description="Listen to every recording, read every transcript, and say what is wrong.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", nargs="+", metavar="DATA", help="[SPLIT=]folder, manifest or hf:")
    parser.add_argument("--format", default="auto", help="format of the data (default: look at it)")
    add_column(parser)
    parser.add_argument("--split", help="look at this split only")
    parser.add_argument("--data-root", type=Path, help="folder that paths are relative to")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write one manifest (.jsonl)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--all", action="store_true", help="show every place, not only the first")
    parser.add_argument(
        "--examples", type=int, default=5, metavar="N", help="places shown per finding (5)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="read only the headers of the audio files"
    )
    parser.add_argument("--workers", type=int, default=2, help="decoding threads (2)")
    _add_limits(parser)
    _add_text_settings(parser)
    parser.set_defaults(func=run)


def add_column(parser: argparse.ArgumentParser) -> None:
    """Add `--column`; `columns_of` reads it."""
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="which column of a table holds audio, text, speaker, ...; text=TIER: the tier of ELAN "
        "or Praat files ('tx@*': all of these; ONE,OTHER: the first there is); can be repeated",
    )


def columns_of(args: argparse.Namespace) -> dict[str, str]:
    """Return what `--column` says."""
    return dict(_pair("--column FIELD=COLUMN", text) for text in args.column)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--encoder-hop-ms", type=float, default=20.0, help="time between two frames (20)"
    )
    limits.add_argument("--min-seconds", type=float, default=0.1, help="shorter is reported (0.1)")
    limits.add_argument("--max-seconds", type=float, default=30.0, help="longer is reported (30)")
    limits.add_argument(
        "--silence-db", type=float, default=-60.0, help="below this all through is silent (-60)"
    )
    limits.add_argument(
        "--max-clipped-percent", type=float, default=0.5, help="of the samples, at full scale (0.5)"
    )
    limits.add_argument(
        "--rare-count", type=int, default=5, help="characters seen fewer times are rare (5)"
    )
    limits.add_argument(
        "--max-unusable-percent",
        type=float,
        default=5.0,
        help="of the recordings of a split; more, but not one or two files, is an error (5)",
    )


def _add_text_settings(parser: argparse.ArgumentParser) -> None:
    text = parser.add_argument_group("text settings, as in a recipe")
    text.add_argument("--unicode-form", choices=("NFC", "NFD", "NFKC", "NFKD"), default="NFC")
    text.add_argument("--keep-case", action="store_true", help="do not lower-case")
    text.add_argument("--keep-punctuation", action="store_true")
    text.add_argument(
        "--keep-characters", metavar="CHARS", default="", help="signs that are letters here too"
    )
    text.add_argument("--strip-marks", action="store_true", help="remove accents and tone marks")
    text.add_argument(
        "--replace", action="append", default=[], metavar="OLD=NEW", help="can be repeated"
    )


def run(args: argparse.Namespace) -> int:
    """Check the data; return 1 when something would break training, else 0."""
    from speechjepa.data.check import check_corpus
    from speechjepa.data.check_render import render_report
    from speechjepa.data.findings import number
    from speechjepa.data.readers import write_manifest
    from speechjepa.data.readers.read import detect_format
    from speechjepa.progress import audio_bar

    options = _options(args)
    if args.write is not None:
        _refuse_unwritable(args.write)
    found: list[Finding] = []
    splits = _read(args, found)
    num_files = len({u.audio_path for utterances in splits.values() for u in utterances})
    with audio_bar("listening", num_files) as progress:
        report = check_corpus(splits, options, known=found, progress=progress)
    if args.json:
        json.dump(report.to_json(), sys.stdout, ensure_ascii=False, indent=1)
        print()
    else:
        print(render_report(report, max_examples=None if args.all else args.examples), end="")
    if args.write is not None:
        write_manifest(_with_unique_ids(report.utterances), args.write)
        written = number(len(report.utterances), "utterance")
        print(f"wrote {written} to {args.write}", file=sys.stderr)
        folders = {Path(_named(argument)[1]).resolve() for argument in args.data}
        folder = args.write.resolve().parent
        stands_for_it = args.write.name == "manifest.jsonl" and folder in folders
        if stands_for_it and detect_format(folder) == "manifest":
            print(
                f"{args.write.parent} is read by this list from now on: recordings and transcripts "
                "that are added there are not seen until it is removed or written anew",
                file=sys.stderr,
            )
    return 1 if report.breaks_training else 0


def _options(args: argparse.Namespace) -> CheckOptions:
    from speechjepa.data.check import CheckOptions
    from speechjepa.text.normalize import TextConfig

    text = TextConfig(
        unicode_form=args.unicode_form,
        lowercase=not args.keep_case,
        strip_punctuation=not args.keep_punctuation,
        keep_characters=TextConfig().keep_characters + args.keep_characters,
        combining_marks="strip" if args.strip_marks else "keep",
        replacements=dict(_pair("--replace OLD=NEW", text) for text in args.replace),
    )
    return CheckOptions(
        text=text,
        encoder_hop_ms=args.encoder_hop_ms,
        min_seconds=args.min_seconds,
        max_seconds=args.max_seconds,
        silence_dbfs=args.silence_db,
        max_clipped_percent=args.max_clipped_percent,
        rare_count=args.rare_count,
        max_unusable_percent=args.max_unusable_percent,
        decode=not args.quick,
        num_workers=args.workers,
    )


def _pair(flag: str, text: str) -> tuple[str, str]:
    """Split `OLD=NEW`; `==NEW` replaces the equals sign."""
    from speechjepa.errors import ConfigError

    first, equals, second = text.partition("=") if text[:1] != "=" else ("=", text[1:2], text[2:])
    if equals != "=":
        name, form = flag.split()
        raise ConfigError(f'{name} must be {form}, but is "{text}" instead.')
    return first, second


def _refuse_unwritable(path: Path) -> None:
    """Say before the listening, which may take hours, that the manifest cannot be written."""
    from speechjepa.errors import DataError

    if path.exists():
        raise DataError("already exists. Write to another name, or remove it.", path=path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot be written ({error.strerror}).", path=path) from error
    if not os.access(path.parent, os.W_OK):
        raise DataError("cannot be written (Permission denied).", path=path)


def _with_unique_ids(utterances: Sequence[Utterance]) -> Sequence[Utterance]:
    """Put the split before every id where two splits use the same one: a manifest holds both."""
    splits: dict[str, str | None] = {}
    if all(splits.setdefault(u.id, u.split) == u.split for u in utterances):
        return utterances
    print("splits share ids: in the manifest they are SPLIT/ID", file=sys.stderr)
    return [dataclasses.replace(u, id=f"{u.split}/{u.id}") for u in utterances]


def _read(args: argparse.Namespace, findings: list[Finding]) -> dict[str, list[Utterance]]:
    """Read every DATA argument and sort its utterances into splits."""
    from speechjepa.data.readers import read_corpus

    columns = columns_of(args)
    splits: dict[str, list[Utterance]] = {}
    for argument in args.data:
        name, location = _named(argument)
        utterances = read_corpus(
            location,
            format=args.format,
            split=args.split,
            columns=columns,
            data_root=args.data_root,
            findings=findings,
        )
        fallback = Path(location).name or "data"
        for utterance in utterances:
            splits.setdefault(name or utterance.split or fallback, []).append(utterance)
    return splits


def _named(argument: str) -> tuple[str | None, str]:
    """Split `dev=corpus/dev` into name and location; a path that exists is taken as it is."""
    name, equals, location = argument.partition("=")
    if not equals or "/" in name or ":" in name or Path(argument).exists():
        return None, argument
    return name, location
