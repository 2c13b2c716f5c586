"""`speechjepa transcribe`: files and folders to text, subtitles or json."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechjepa.cli import live
from speechjepa.cli.transcribe_progress import Tally, progress_bar, tell
from speechjepa.errors import ConfigError

if TYPE_CHECKING:
    from speechjepa.inference.model import SpeechModel
    from speechjepa.inference.transcribe_files import Outcome

_DESCRIPTION = (
    "Transcribe audio or video files of any length. Without -o, the transcript goes to stdout."
)
_EPILOG = (
    "Exit status: 0 when every file is transcribed (or has its transcript already), 1 when one "
    "could not be, 2 when nothing was tried. After Ctrl-C the same command goes on with the files "
    "that are left."
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `transcribe` command."""
    parser = subparsers.add_parser(
        "transcribe",
        help="files, folders and live audio to text, subtitles, ELAN or Praat",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    files = "audio, video, or folders of them"
    live.add_arguments(parser, add("inputs", nargs="+", metavar="FILE|FOLDER", help=files))
    add(
        "--model",
        required=True,
        metavar="M",
        help="a fine-tuned bundle, a run's folder, or a published checkpoint (see `convert`)",
    )
    add(
        *_spellings("output_dir", "-o"),
        dest="output_dir",
        metavar="OUT",
        help="folder for the transcripts; the structure of input folders is kept. A transcript "
        "that is there already is left as it is, and said, unless --overwrite",
    )
    add(
        *_spellings("output_format", "-f"),
        dest="output_format",
        default="txt",
        metavar="FORMAT",
        help="txt, srt, vtt, tsv, json, eaf (ELAN), TextGrid (Praat), several parted by commas, "
        "or all (default: txt)",
    )
    add("--overwrite", action="store_true", help="replace transcripts that are there already")
    add(
        *_spellings("word_timestamps"),
        dest="word_timestamps",
        action="store_true",
        help="times and scores of words, in json",
    )
    add(
        *_spellings("character_timestamps"),
        dest="character_timestamps",
        action="store_true",
        help="those of the characters of each word as well",
    )
    _add_decoding(parser)
    _add_computing(parser)


def _add_computing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how it is computed").add_argument
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps, ... (default: cuda if there)")
    add(
        *_spellings("batch_size"),
        dest="batch_size",
        type=_positive(int),
        metavar="N",
        help="windows computed at once (default: 1 on a cpu, else 8)",
    )
    add(
        *_spellings("compute_type"),
        dest="compute_type",
        choices=("auto", "float32", "bfloat16", "int8"),
        default="auto",
        help="number format; auto = the fastest of them here, by a trial of a second or so, which "
        "is said (default: auto)",
    )
    add(
        "--vad",
        choices=("auto", "silero", "energy", "none"),
        default="auto",
        help="how speech is found before it is decoded: Silero's detector, the level above the "
        "noise, or not at all (default: auto, which is silero)",
    )
    add(
        *_spellings("window_seconds"),
        *_spellings("chunk_length_s"),
        dest="window_seconds",
        type=_positive(float),
        default=30.0,
        metavar="S",
        help="what the encoder sees at once, in seconds (default: 30)",
    )
    add(
        *_spellings("overlap_seconds"),
        dest="overlap_seconds",
        type=float,
        default=4.0,
        metavar="S",
        help="what neighbouring windows share, in seconds (default: 4)",
    )
    add(
        *_spellings("no_second_pass"),
        dest="second_pass",
        action="store_false",
        help="windows only; do not hear speech in pieces as long as the training utterances",
    )


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how the text is chosen").add_argument
    add(
        "--language",
        metavar="CODE",
        help="language of the speech, one of the model's; auto = as heard, where it knows several",
    )
    add(
        "--decoder",
        choices=("auto", "greedy", "beam"),
        default="auto",
        help="greedy, or beam search with the model's language model; auto = beam if it has one",
    )
    add("--lm", metavar="FILE.arpa", help="another language model, of characters or of words")
    add(
        "--hotwords",
        default="",
        metavar="WORDS",
        help='names and terms to prefer, "a,b c", or a .txt file with one a line',
    )
    add(
        *_spellings("hotword_score"),
        dest="hotword_score",
        type=float,
        default=6.0,
        metavar="NATS",
        help="how much to prefer them (default: 6)",
    )
    add(
        *_spellings("n_best"),
        dest="n_best",
        type=_positive(int),
        default=1,
        metavar="N",
        help="texts for each segment, in json (default: 1)",
    )


_AS_THEY_ARE = (
    *("language", "decoder", "hotword_score", "n_best", "character_timestamps"),
    *("vad", "window_seconds", "overlap_seconds", "second_pass"),
)
"""Flags that `transcribe_files` takes under the same name."""


def run(args: argparse.Namespace) -> int:
    """Transcribe what the arguments name; the exit status is as `--help` says."""
    from speechjepa.inference.decoding import read_hotwords
    from speechjepa.inference.model import load
    from speechjepa.inference.output_folder import prepare_folder
    from speechjepa.inference.transcribe_files import Outcome, find_recordings, transcribe_files
    from speechjepa.inference.writers import parse_formats

    if live.is_wanted(args):
        live.check(args)
        return live.run(args, load(args.model, device=_device(args.device)))
    if "-" in args.inputs:
        raise ConfigError("- is standard input, which is heard as it comes: give --stream too")
    formats = parse_formats(args.output_format)
    recordings = find_recordings(args.inputs)
    is_alone = len(recordings) == 1
    if args.output_dir is None and (len(formats) > 1 or not (is_alone or formats[0] in _LINES)):
        raise ConfigError(
            "several formats, or srt, vtt or tsv of several files, need a folder to go to: give "
            "-o OUT"
        )
    if all(recording.problem is not None for recording in recordings):
        for recording in recordings:
            tell(Outcome(path=recording.path, status="failed", message=recording.problem or ""))
        raise ConfigError("there is nothing to transcribe")
    options = {name: getattr(args, name) for name in _AS_THEY_ARE}
    options |= {"language_model": args.lm, "hotwords": read_hotwords(args.hotwords)}
    if args.output_dir is not None:
        prepare_folder(Path(args.output_dir), "transcripts")
    device = _device(args.device)
    model = _load(args, device)
    # A lone transcript is printed line by line, as it becomes final.
    as_it_comes = args.output_dir is None and is_alone and formats == ("txt",)
    has_words = args.word_timestamps or args.character_timestamps
    tally = Tally()
    with progress_bar() as (on_start, on_progress, on_end):
        outcomes = transcribe_files(
            model,
            args.inputs,
            output_dir=args.output_dir,
            formats=formats,
            overwrite=args.overwrite,
            on_start=on_start,
            on_progress=on_progress,
            on_segment=_print_segment if as_it_comes else None,
            word_timestamps=has_words,
            batch_size=args.batch_size or (1 if device == "cpu" else 8),
            **options,
        )
        try:
            for outcome in outcomes:
                on_end(outcome)
                tally.add(outcome)
                if args.output_dir is None and outcome.result is not None and not as_it_comes:
                    print(_for_stdout(outcome, formats[0], has_words, is_alone))
        except KeyboardInterrupt:
            print(
                f"stopped after {tally.done} files; the same command goes on with the others",
                file=sys.stderr,
            )
            return 130
    tally.tell(args.output_dir)
    return 1 if tally.failed else 0


def _load(args: argparse.Namespace, device: str) -> SpeechModel:
    from speechjepa.inference.model import load

    language = None if args.language == "auto" else args.language
    model = load(args.model, device=device, language=language, compute_type=args.compute_type)
    if args.compute_type == "auto" and model.computation is not None:
        print(model.computation, file=sys.stderr)
    return model


def _print_segment(segment: dict[str, Any]) -> None:
    from speechjepa.inference.writers import format_result

    print(format_result({"segments": [segment]}, "txt"), end="", flush=True)


_LINES = ("txt", "json")
"""Formats that can say on one line each what several files hold."""


def _for_stdout(outcome: Outcome, format_name: str, word_timestamps: bool, is_alone: bool) -> str:
    """Return a transcript as it is printed: as its file would be, or on one line among others."""
    from speechjepa.data.readers.common import as_line, as_text
    from speechjepa.inference.writers import format_result, without_words

    assert outcome.result is not None
    if is_alone:
        result = outcome.result
        if format_name == "eaf":  # which names its recording
            result = {**result, "path": as_text(str(outcome.path))}
        text = format_result(result, format_name, word_timestamps=word_timestamps)
        return text.removesuffix("\n")
    if format_name == "txt":
        return f"{as_line(str(outcome.path))}\t{outcome.result['text']}"
    result = outcome.result if word_timestamps else without_words(outcome.result)
    return json.dumps({"path": as_text(str(outcome.path)), **result}, ensure_ascii=False)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the device {name!r} cannot be used: {reason}") from error
    return name


def _spellings(name: str, *short: str) -> tuple[str, ...]:
    """Return a flag with underscores (as Whisper's) and with hyphens."""
    return (*short, f"--{name}", f"--{name.replace('_', '-')}")


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"must be above 0, but is {text} instead")
        return value

    parse.__name__ = "number above 0"
    return parse
