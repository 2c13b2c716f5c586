"""`speechjepa transcribe`: files and folders to text, subtitles or json."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from speechjepa.cli import live
from speechjepa.errors import AudioError, ConfigError

if TYPE_CHECKING:
    from speechjepa.inference.model import SpeechModel
    from speechjepa.inference.transcribe_files import Outcome, Recording

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


def run(args: argparse.Namespace) -> int:
    """Transcribe what the arguments name; the exit status is as `--help` says."""
    from speechjepa.inference.decoding import read_hotwords
    from speechjepa.inference.model import load
    from speechjepa.inference.transcribe_files import find_recordings, transcribe_files
    from speechjepa.inference.writers import parse_formats

    if live.is_wanted(args):
        live.check(args)
        return live.run(args, load(args.model, device=_device(args.device)))
    if "-" in args.inputs:
        raise ConfigError("- is standard input, which is heard as it comes: give --stream too")
    formats = parse_formats(args.output_format)
    is_alone = len(find_recordings(args.inputs)) == 1
    if args.output_dir is None and (len(formats) > 1 or not (is_alone or formats[0] in _LINES)):
        print(
            "error: several formats, or srt, vtt or tsv of several files, need a folder to go to: "
            "give -o OUT",
            file=sys.stderr,
        )
        return 2
    device = _device(args.device)
    model = _load(args, device)
    # A lone transcript is printed line by line, as it becomes final.
    as_it_comes = args.output_dir is None and is_alone and formats == ("txt",)
    has_words = args.word_timestamps or args.character_timestamps
    num_failed = num_done = 0
    with _progress() as (on_start, on_progress, on_end):
        outcomes = transcribe_files(
            model,
            args.inputs,
            output_dir=args.output_dir,
            formats=formats,
            overwrite=args.overwrite,
            on_start=on_start,
            on_progress=on_progress,
            on_segment=_print_segment if as_it_comes else None,
            language=args.language,
            word_timestamps=has_words,
            character_timestamps=args.character_timestamps,
            decoder=args.decoder,
            language_model=args.lm,
            hotwords=read_hotwords(args.hotwords),
            hotword_score=args.hotword_score,
            n_best=args.n_best,
            vad=args.vad,
            window_seconds=args.window_seconds,
            overlap_seconds=args.overlap_seconds,
            second_pass=args.second_pass,
            batch_size=args.batch_size or (1 if device == "cpu" else 8),
        )
        try:
            for outcome in outcomes:
                on_end(outcome)
                num_failed += outcome.status == "failed"
                num_done += outcome.status == "done"
                if args.output_dir is None and outcome.result is not None and not as_it_comes:
                    print(_for_stdout(outcome, formats[0], has_words, is_alone))
        except KeyboardInterrupt:
            print(
                f"stopped after {num_done} files; the same command goes on with the others",
                file=sys.stderr,
            )
            return 130
    if num_failed:
        print(f"files that could not be transcribed: {num_failed}", file=sys.stderr)
    return 1 if num_failed else 0


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


_Events = tuple[
    Callable[["Recording", int, int], None], Callable[[float], None], Callable[["Outcome"], None]
]


@contextmanager
def _progress() -> Iterator[_Events]:
    """Yield what to call when a file starts, goes on and ends: a bar on a terminal, and messages.

    Without a terminal only files that failed, were skipped or left alone are told.
    """
    if not sys.stderr.isatty():
        yield (lambda *_: None), (lambda _: None), _tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from speechjepa.audio.files import probe_audio

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[done]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # Transcripts must reach stdout, not the console that the bar is on.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("", done="", rate="")
        started = perf_counter()

        def on_start(recording: Recording, number: int, num_files: int) -> None:
            nonlocal started
            started = perf_counter()
            try:
                total = probe_audio(recording.path).duration
            except AudioError:  # told when it is read
                total = None
            description = f"{number}/{num_files} {recording.path.name}"
            progress.reset(task, total=total, description=description, done="", rate="")

        def on_progress(seconds: float) -> None:
            rate = seconds / max(1e-6, perf_counter() - started)
            progress.update(
                task, completed=seconds, done=_minutes(seconds), rate=f"{rate:.0f} x real time"
            )

        def on_end(outcome: Outcome) -> None:
            _tell(outcome)
            if outcome.result is not None:
                duration = outcome.result["duration"]
                rate = duration / max(1e-6, outcome.seconds)
                print(
                    f"{outcome.path}: {_minutes(duration)} of audio at {rate:.0f} x real time",
                    file=sys.stderr,
                )

        yield on_start, on_progress, on_end


def _tell(outcome: Outcome) -> None:
    from speechjepa.data.readers.common import as_line

    path = as_line(str(outcome.path))
    if outcome.status == "failed":
        print(f"error: {path}: {outcome.message}", file=sys.stderr)
    elif outcome.message:
        print(f"{path}: {outcome.message}", file=sys.stderr)


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
