"""`speechjepa select`: which recordings to transcribe first."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from speechjepa.cli.check import add_column, columns_of

if TYPE_CHECKING:
    from speechjepa.inference.select import Selection

EPILOG = """\
Writes two files: LABELS.txt, the ids, one per line; and LABELS.tsv, the same with paths and
reasons, the most useful first. Once they are transcribed, `speechjepa run` learns from them and
from every other transcript. data.labels=LABELS.txt restricts it to that list; the path is relative
to the folder that the command is run in.

  speechjepa select recordings/ --minutes 10 -o first.txt
  speechjepa select corpus/train --minutes 30 --model runs/encoder -o next.txt
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `select` command."""
    parser = subparsers.add_parser(
        "select",
        help="which recordings to transcribe, when there is time for minutes only",
        description="Propose the recordings whose transcripts would teach most: together they "
        "cover the sounds and speakers of all, are dense in speech, and can be heard well. "
        "Recordings with a transcript are not proposed; what is proposed adds to them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", nargs="+", metavar="DATA", help="folders, manifests or hf:NAME")
    parser.add_argument("--minutes", type=float, required=True, metavar="N", help="how much")
    parser.add_argument(
        "--model", metavar="M", help="a bundle, or a run's folder (default: the shipped encoder)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("labels.txt"),
        metavar="LABELS.txt",
        help="list of ids to write (default: labels.txt in the current folder)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument(
        "--include-transcribed",
        action="store_true",
        help="propose recordings that have a transcript too (default: their sounds are covered)",
    )
    parser.add_argument("--split", help="only this split of the data")
    parser.add_argument("--format", default="auto", help="format of the data (default: look at it)")
    add_column(parser)
    parser.add_argument("--data-root", type=Path, help="folder that paths are relative to")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--min-seconds", type=float, default=1.0, help="shorter is left out (1)")
    limits.add_argument("--max-seconds", type=float, default=15.0, help="longer is left out (15)")
    limits.add_argument("--seed", type=int, default=0, help="of the search for kinds of sound (0)")


def run(args: argparse.Namespace) -> int:
    """Write the lists; return 0."""
    from speechjepa.data.readers import read_corpus
    from speechjepa.errors import ConfigError, DataError
    from speechjepa.inference.model import load
    from speechjepa.inference.output_folder import prepare_outputs
    from speechjepa.inference.select import LONG_ADVICE, TRANSCRIBED, SelectOptions, select
    from speechjepa.models.shipped import shipped_encoder
    from speechjepa.progress import audio_bar

    options = SelectOptions(
        minutes=args.minutes,
        min_seconds=args.min_seconds,
        max_seconds=args.max_seconds,
        include_transcribed=args.include_transcribed,
        seed=args.seed,
    )
    if args.output.suffix != ".txt":
        raise ConfigError(f"--output must end in .txt, but is {args.output} instead")
    table = args.output.with_suffix(".tsv")
    for path in (args.output, table):
        if path.exists() and not args.overwrite:
            raise DataError("is there already; --overwrite replaces it", path=path)
    prepare_outputs((args.output, table), "lists")
    model = load(args.model or shipped_encoder())
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
        found = select(model, utterances, options, progress=progress)
    _write(found, args.output, table)
    for reason, names in found.left_out.items():
        print(f"left out, {reason}: {len(names)} (first: {names[0]})", file=sys.stderr)
        if reason.startswith("longer"):
            print(LONG_ADVICE, file=sys.stderr)
    known = len(found.left_out.get(TRANSCRIBED, ()))
    with_known = f" with the {known} that are {TRANSCRIBED}" if known else ""
    speakers = {choice.heard.utterance.speaker for choice in found.chosen} - {None}
    print(
        f"{len(found.chosen)} of {len(utterances)} recordings, {found.seconds / 60:.1f} minutes"
        + (f", {len(speakers)} speakers" if speakers else "")
        + f", {100 * found.coverage:.0f} % of the sounds{with_known}: {args.output} and {table}"
    )
    print(
        "transcribe them, and a run learns from them and from every other transcript; "
        f"data.labels={args.output} restricts it to this list",
        file=sys.stderr,
    )
    return 0


def _write(found: Selection, ids: Path, table: Path) -> None:
    rows = ["id\tseconds\tnew_sounds\trange_db\tspeaker\tpath\tstart"]
    for choice in found.chosen:
        heard, utterance = choice.heard, choice.heard.utterance
        rows.append(
            f"{utterance.id}\t{heard.seconds:.2f}\t{choice.new_sounds}\t{heard.range_db:.0f}"
            f"\t{utterance.speaker or ''}\t{utterance.audio_path}\t{utterance.start:.2f}"
        )
    names = [choice.heard.utterance.id for choice in found.chosen]
    for path, lines in ((ids, names), (table, rows)):
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
