"""`speechjepa surprise`: where speech goes on as a model does not expect."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speechjepa.inference.model import SpeechModel
    from speechjepa.inference.surprise import Surprise

logger = logging.getLogger(__name__)

SPAN_SECONDS = 0.2
"""What a JEPA must have hidden in pretraining to be surprised by what listeners are (seconds);
those of the default settings are surprised at chance (docs/LOG.md, 2026-11-29)."""
FOR_SURPRISE = "--objective future --minutes 5"
"""The pretraining that is made for it."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `surprise` command."""
    parser = subparsers.add_parser(
        "surprise",
        help="where a recording goes on as speech does not: gaps, bursts, and some splices",
        description="Print how unexpected each recording is to a pretrained model: a table of "
        "file, seconds, mean error, mean of its highest tenth, and the time of the peak (s).",
        epilog=f"Make the model with `speechjepa pretrain recordings/ {FOR_SURPRISE} -o runs/usual`"
        ", of recordings that are as they should be: 0 is the mean of their frames, 1 is one "
        "standard deviation of a frame more; the mean of a whole recording moves by tenths. Gaps "
        "and bursts show in `peak` and `peak_at`. Of splices and cuts, most are told from the same "
        "speech without them, few from other speech. Scores compare recordings of one kind under "
        "one model: another language or microphone is a surprise too. "
        "Exit status: 0 when every file was heard, 1 when one could not be.",
    )
    parser.add_argument("inputs", nargs="+", metavar="FILE|FOLDER", help="audio, or folders of it")
    parser.add_argument("--model", required=True, metavar="M", help="a pretrained bundle, or a run")
    parser.add_argument(
        "-o",
        "--output_dir",
        "--output-dir",
        dest="output_dir",
        type=Path,
        metavar="OUT",
        help="folder for the error over time (.tsv) and its plot (.svg)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")


def run(args: argparse.Namespace) -> int:
    """Print the table; write the curves where asked for."""
    from speechjepa.data.readers.common import as_line
    from speechjepa.errors import DataError, SpeechJepaError
    from speechjepa.inference.model import load
    from speechjepa.inference.output_folder import prepare_folder, tell_kept
    from speechjepa.inference.surprise import future_of, predictor_of, surprise_of_file
    from speechjepa.inference.transcribe_files import find_recordings

    if args.output_dir is not None:
        prepare_folder(args.output_dir, "curves")
    # A run's folder holds a fine-tuned model too, which has no predictor any more.
    inside = Path(args.model) / "pretrain" / "bundle"
    model = load(inside if inside.is_dir() else args.model)
    if future_of(model) is None:
        hidden = predictor_of(model)[1].mask_length_seconds
        if hidden < SPAN_SECONDS:
            logger.warning(
                "%s was pretrained for fine-tuning, with hidden spans of %g s: expect its scores "
                "to be at chance; for this command pretrain with %s",
                args.model,
                hidden,
                FOR_SURPRISE,
            )
    recordings = find_recordings(args.inputs)
    failed = 0
    kept: list[Path] = []
    print("file\tseconds\tscore\tpeak\tpeak_at")
    for recording in recordings:
        try:
            if recording.problem is not None:
                raise DataError(recording.problem, path=recording.path)
            found = surprise_of_file(model, recording.path)
            if args.output_dir is not None:
                base = args.output_dir / recording.name
                kept += _write(found, model, recording.path, base, args.overwrite)
        except SpeechJepaError as error:
            failed += 1
            print(f"error: {as_line(str(error))}", file=sys.stderr)
            continue
        figures = f"{found.seconds:.2f}\t{found.score:.4f}\t{found.peak:.4f}\t{found.peak_time:.2f}"
        print(f"{as_line(str(recording.path))}\t{figures}")
    tell_kept(kept)
    if failed:
        print(f"files that could not be heard: {failed}", file=sys.stderr)
    return 1 if failed else 0


def _write(
    found: Surprise, model: SpeechModel, path: Path, base: Path, overwrite: bool
) -> list[Path]:
    """Write the curve and its plot; return which of them were there already and stay."""
    from speechjepa.audio.files import read_audio
    from speechjepa.data.readers.common import as_line
    from speechjepa.inference.surprise_plot import envelope, surprise_svg

    table, plot = (base.with_name(base.name + suffix) for suffix in (".tsv", ".svg"))
    kept = [] if overwrite else [target for target in (table, plot) if target.exists()]
    base.parent.mkdir(parents=True, exist_ok=True)
    if table not in kept:
        rows = [f"{t:.3f}\t{e:.6f}" for t, e in zip(found.times, found.error, strict=True)]
        _write_whole(table, "\n".join(["seconds\terror", *rows]) + "\n")
    if plot not in kept:
        loudness = envelope(read_audio(path, sample_rate=model.sample_rate))
        _write_whole(plot, surprise_svg(found, as_line(path.name), loudness))
    return kept


def _write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all: what is there is never written again."""
    partial = path.with_name(f".{path.name}.unfinished")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
