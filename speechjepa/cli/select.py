"""`speechjepa select`: which recordings to transcribe first."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from speechjepa.cli.check import add_column, columns_of

if TYPE_CHECKING:
    from speechjepa.data.utterance import Utterance
    from speechjepa.inference.select import Selection, SelectOptions

EPILOG = """\
Writes two files: LABELS.txt, the ids, one per line; and LABELS.tsv, the same with paths, times and
reasons, the most useful first. Of long recordings stretches are proposed, NAME@START-STOP in
milliseconds; --eaf DIR marks them in ELAN documents. Once they are transcribed, `speechjepa run`
learns from them and from every other transcript. data.labels=LABELS.txt restricts it to that list;
the path is relative to the folder that the command is run in.

  speechjepa select recordings/ --minutes 10 -o first.txt
  speechjepa select recordings/ --minutes 10 -o first.txt --eaf to_transcribe
  speechjepa select corpus/train --minutes 30 --model runs/encoder -o next.txt
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `select` command."""
    parser = subparsers.add_parser(
        "select",
        help="which recordings to transcribe, when there is time for minutes only",
        description="Propose recordings to transcribe first: together they cover the sounds and "
        "speakers of all, are dense in speech, and can be heard well. "
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
    parser.add_argument(
        "--eaf",
        type=Path,
        metavar="DIR",
        help="write an ELAN document for each long recording, in which what is proposed is marked",
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
    limits.add_argument(
        "--max-seconds",
        type=float,
        default=15.0,
        help="longer recordings are proposed in stretches, divided where nobody speaks (15)",
    )
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
    utterances = _divide(utterances, options, model.sample_rate)
    with audio_bar("listening", len(utterances)) as progress:
        found = select(model, utterances, options, progress=progress)
    _write(found, args.output, table)
    marked = [] if args.eaf is None else _write_marks(found, args, utterances)
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
    if args.eaf is not None:
        _say_marked(marked, found, table)
    return 0


def _say_marked(marked: Sequence[Path], found: Selection, table: Path) -> None:
    """Say on stderr which ELAN documents were written, and what has none."""
    from speechjepa.data.findings import number

    if marked:
        print(
            f"{number(len(marked), 'ELAN document')}, the first {marked[0]}: type into what is "
            "marked, and lay each beside its recording",
            file=sys.stderr,
        )
    if len(marked) < len({choice.heard.utterance.audio_path for choice in found.chosen}):
        print(
            "short recordings, and those that have a transcript, get no such document; times are "
            f"in {table}",
            file=sys.stderr,
        )


def _divide(
    utterances: Sequence[Utterance], options: SelectOptions, sample_rate: int
) -> list[Utterance]:
    """Replace long recordings without a transcript by the stretches of speech in them."""
    from speechjepa.data.durations import seconds_of
    from speechjepa.errors import AudioError
    from speechjepa.inference.long_recordings import cut_where_nobody_speaks
    from speechjepa.progress import track

    long = {id(u) for u in utterances if u.text is None and seconds_of(u) > options.max_seconds}
    divided: list[Utterance] = []
    for utterance in track(utterances, "finding pauses", len(utterances)):
        stretches: list[Utterance] = []
        if id(utterance) in long:
            try:
                for stretch in cut_where_nobody_speaks(
                    utterance, sample_rate=sample_rate, max_seconds=options.max_seconds
                ):
                    stretches.append(stretch)
            except AudioError as error:
                print(f"left out from there on: {error}", file=sys.stderr)
        divided += stretches or [utterance]
    return divided


def _marks(found: Selection, utterances: Sequence[Utterance]) -> dict[Path, list[Utterance]]:
    """Return the proposed stretches of each recording in which nothing is transcribed."""
    transcribed = {u.audio_path for u in utterances if u.text}
    marks: dict[Path, list[Utterance]] = {}
    for choice in found.chosen:
        utterance = choice.heard.utterance
        is_stretch = utterance.duration is not None and "@" in utterance.id
        if is_stretch and utterance.audio_path not in transcribed:
            marks.setdefault(utterance.audio_path, []).append(utterance)
    return marks


def _write_marks(
    found: Selection, args: argparse.Namespace, utterances: Sequence[Utterance]
) -> list[Path]:
    """Write an ELAN document for each recording with proposed stretches; return their paths."""
    from speechjepa.errors import DataError
    from speechjepa.inference.annotation_writers import eaf

    documents: dict[Path, str] = {}
    for recording, stretches in _marks(found, utterances).items():
        path = args.eaf / _place_below(recording, args.data).with_suffix(".eaf")
        if path in documents:
            path = path.with_name(f"{recording.name}.eaf")
        if path.exists() and not args.overwrite:
            raise DataError("is there already; --overwrite replaces it", path=path)
        segments = [
            {"start": u.start, "end": u.start + (u.duration or 0.0), "text": ""}
            for u in sorted(stretches, key=lambda u: u.start)
        ]
        documents[path] = eaf({"path": str(recording), "segments": segments})
    for path, document in documents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document, encoding="utf-8")
    return list(documents)


def _place_below(recording: Path, folders: Sequence[str]) -> Path:
    """Return the path of a recording below the folder that it was found in, or its name."""
    for folder in folders:
        root = Path(folder).expanduser().resolve()
        if recording.resolve().is_relative_to(root) and recording.resolve() != root:
            return recording.resolve().relative_to(root)
    return Path(recording.name)


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
