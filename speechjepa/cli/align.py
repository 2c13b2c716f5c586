"""`speechjepa align`: when each word of a given transcript is spoken."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `align` command."""
    parser = subparsers.add_parser(
        "align",
        help="times of the words of a transcript that is known",
        description="Find when each line and word of a text is spoken in a recording.",
        epilog="example: speechjepa align story.wav story.txt --model runs/my_language -f eaf -o .",
    )
    parser.add_argument("audio", type=Path, metavar="AUDIO", help="recording of any length")
    parser.add_argument(
        "text", type=Path, metavar="TEXT", help="file with all that is said, a segment a line"
    )
    parser.add_argument("--model", required=True, metavar="M", help="a fine-tuned bundle, or a run")
    parser.add_argument(
        "-f", "--output_format", default="json", metavar="FORMAT", help="as of transcribe (json)"
    )
    parser.add_argument(
        "-o", "--output_dir", type=Path, metavar="OUT", help="folder to write to (default: stdout)"
    )
    parser.add_argument(
        "--character_timestamps",
        "--character-timestamps",
        action="store_true",
        help="times of the characters of each word too, in json",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")


def run(args: argparse.Namespace) -> int:
    """Print or write the times; return 0."""
    from speechjepa.audio.files import AUDIO_SUFFIXES
    from speechjepa.data.readers.common import as_text
    from speechjepa.data.readers.text_files import read_text
    from speechjepa.errors import ConfigError, DataError
    from speechjepa.inference.align_file import align_file
    from speechjepa.inference.model import load
    from speechjepa.inference.output_folder import in_place_of_inputs, places_of, prepare_outputs
    from speechjepa.inference.writers import (
        format_result,
        output_paths,
        parse_formats,
        write_result,
    )

    formats = parse_formats(args.output_format)
    if args.output_dir is None and len(formats) > 1:
        raise ConfigError("several formats need a folder to go to: give -o OUT")
    if not args.text.is_file():
        what = "is a folder; name the file" if args.text.is_dir() else "there is no such file"
        raise DataError(what, path=args.text)
    if args.text.suffix.lower() in AUDIO_SUFFIXES:
        raise DataError("is a recording; it comes first, and its text after it", path=args.text)
    outputs: list[Path] = []
    if args.output_dir is not None:
        outputs = list(output_paths(args.output_dir / args.audio.stem, formats).values())
        problem = in_place_of_inputs(outputs, places_of([args.audio, args.text]))
        if problem is not None:
            raise DataError(problem)
        for path in outputs:
            if path.exists() and not args.overwrite:
                raise DataError("is there already; --overwrite replaces it", path=path)
        prepare_outputs(outputs, "times")
    result = align_file(
        load(args.model),
        args.audio,
        read_text(args.text),
        text_name=args.text,
        character_timestamps=args.character_timestamps,
    )
    if outputs:
        write_result(result, outputs, recording=args.audio, overwrite=True)
        print("\n".join(map(str, outputs)))
    else:
        print(format_result({**result, "path": as_text(str(args.audio))}, formats[0]), end="")
    return 0
