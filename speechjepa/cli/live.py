"""`speechjepa transcribe --stream` and `--mic`: words as they come."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import IO, TYPE_CHECKING, Any, cast

from speechjepa.errors import AudioError, ConfigError

if TYPE_CHECKING:
    from speechjepa.inference.model import SpeechModel
    from speechjepa.inference.stream import Heard

_PARTIAL, _PLAIN, _REWRITE = "\x1b[2m", "\x1b[0m", "\r\x1b[2K"


def add_arguments(parser: argparse.ArgumentParser, inputs: argparse.Action) -> None:
    """Add the arguments of live audio; `inputs` names the files, which a microphone needs not."""

    class Microphone(argparse.Action):
        def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
            namespace.mic = values
            inputs.required = False

    add = parser.add_argument_group("live").add_argument
    add(
        "--stream",
        action="store_true",
        help="print words as they come from FILE, or from - (standard input: raw 16-bit mono at "
        "16 kHz, or wav). A terminal shows the words that may still change too; elsewhere there "
        "is a line per pause, or json lines with -f json",
    )
    add(
        "--mic",
        action=Microphone,
        nargs="?",
        const="",
        metavar="DEVICE",
        help="print words as a microphone hears them",
    )
    add(
        "--chunk_seconds",
        "--chunk-seconds",
        dest="chunk_seconds",
        type=float,
        default=0.32,
        metavar="S",
        help="live: what is heard at once, in seconds (default: 0.32)",
    )
    add(
        "--look_ahead_seconds",
        "--look-ahead-seconds",
        dest="look_ahead_seconds",
        type=float,
        metavar="S",
        help="live: what is heard of the audio after that, in seconds: more means fewer errors, "
        "and words so much later (default: 0.16; only for models fine-tuned with `streaming`)",
    )


def is_wanted(args: argparse.Namespace) -> bool:
    """Say whether the arguments ask for live audio."""
    return bool(args.stream) or args.mic is not None


def check(args: argparse.Namespace) -> None:
    """Refuse what a stream cannot do.

    Raises:
        ConfigError: With what to leave out.
    """
    inputs = args.inputs or []
    if args.mic is not None and (inputs or args.stream):
        raise ConfigError("--mic listens to a microphone: give it no files, and no --stream")
    if args.mic is None and len(inputs) != 1:
        raise ConfigError("--stream takes one file, or - for standard input")
    if args.output_format not in ("txt", "json"):
        raise ConfigError("a stream is printed as txt or json, one line at a time: say -f json")
    if args.output_dir is not None:
        raise ConfigError("a stream is printed: leave -o out, and write `> FILE` behind it")
    if args.lm or args.hotwords or args.n_best > 1:
        raise ConfigError("--lm, --hotwords and --n_best are for recordings, not for streams")
    if args.compute_type not in ("auto", "float32"):
        raise ConfigError("a stream is computed in float32: leave --compute_type out")


def run(args: argparse.Namespace, model: SpeechModel) -> int:
    """Print words until the audio ends or Ctrl-C is pressed, the last ones too."""
    stream = model.stream(
        args.language,
        chunk_seconds=args.chunk_seconds,
        look_ahead_seconds=args.look_ahead_seconds,
        decoder=args.decoder,
        vad=args.vad,
    )
    printer = _printer(args.output_format, sys.stdout)
    with _ending_well() as interrupt:
        try:
            for samples in interrupt.while_waiting(_blocks(args, stream.sample_rate)):
                for heard in stream.feed(samples):
                    printer.show(heard)
        except KeyboardInterrupt:
            pass  # the audio ends here
        except AudioError:  # what came before the damage was heard
            printer.show(stream.finish())
            raise
        printer.show(stream.finish())
    return 0


def _blocks(args: argparse.Namespace, sample_rate: int) -> Iterator[Any]:
    from speechjepa.audio.files import stream_audio
    from speechjepa.audio.live import read_microphone, read_pipe

    if args.mic is not None:
        return read_microphone(args.mic, sample_rate, args.chunk_seconds)
    if args.inputs[0] == "-":
        return read_pipe(cast(BufferedReader, sys.stdin.buffer), sample_rate)
    return stream_audio(args.inputs[0], sample_rate=sample_rate, block_seconds=args.chunk_seconds)


class _Interrupt:
    """Ctrl-C ends the waiting for audio at once, but no chunk half way; a second one ends all."""

    def __init__(self) -> None:
        self._waits = self._was_asked = False

    def handle(self, number: int, frame: Any) -> None:
        if self._waits or self._was_asked:
            self._waits = False
            raise KeyboardInterrupt
        self._was_asked = True

    def while_waiting(self, blocks: Iterator[Any]) -> Iterator[Any]:
        """Yield the blocks; raise KeyboardInterrupt between them where Ctrl-C was pressed."""
        while not self._was_asked:
            self._waits = True
            try:
                block = next(blocks)
            except StopIteration:
                return
            finally:
                self._waits = False
            yield block


@contextmanager
def _ending_well() -> Iterator[_Interrupt]:
    interrupt = _Interrupt()
    is_main = threading.current_thread() is threading.main_thread()
    earlier = signal.signal(signal.SIGINT, interrupt.handle) if is_main else None
    try:
        yield interrupt
    finally:
        if is_main:
            signal.signal(signal.SIGINT, earlier)


class _Lines:
    """Final words as they come, a line per pause; nothing is taken back."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._begun = False

    def show(self, heard: Heard) -> None:
        """Write what is new."""
        text = heard.text
        if text:
            self._out.write(f" {text}" if self._begun else text)
            self._begun = True
        if heard.endpoint and self._begun:
            self._out.write("\n")
            self._begun = False
        self._out.flush()


class _Terminal:
    """The line being spoken, rewritten in place: final words, then the others, faint."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._final = ""

    def show(self, heard: Heard) -> None:
        """Write the line again."""
        self._final = " ".join(part for part in (self._final, heard.text) if part)
        if heard.endpoint:
            if self._final:
                self._out.write(f"{_REWRITE}{self._final}\n")
            else:
                self._out.write(_REWRITE)
            self._final = ""
        else:
            final, partial = self._fitting(heard.partial_text)
            self._out.write(f"{_REWRITE}{final}{_PARTIAL}{partial}{_PLAIN}")
        self._out.flush()

    def _fitting(self, partial: str) -> tuple[str, str]:
        """Return the ends of both texts that fit on one line."""
        from rich.cells import cell_len

        room = shutil.get_terminal_size().columns - 1
        texts = [self._final + " " if self._final and partial else self._final, partial]
        kept = []
        for text in reversed(texts):
            while cell_len(text) > room:
                text = text[1:]
            room -= cell_len(text)
            kept.append(text)
        return kept[1], kept[0]


class _JsonLines:
    """One line of json for everything that changes."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._partial: list[dict[str, Any]] = []

    def show(self, heard: Heard) -> None:
        """Write it if it says something new."""
        if heard.final or heard.endpoint or heard.partial != self._partial:
            said = {
                "seconds": round(heard.seconds, 3),
                "final": heard.final,
                "partial": heard.partial,
                "endpoint": heard.endpoint,
            }
            self._out.write(json.dumps(said, ensure_ascii=False) + "\n")
            self._out.flush()
        self._partial = heard.partial


def _printer(format_name: str, out: IO[str]) -> _Lines | _Terminal | _JsonLines:
    if format_name == "json":
        return _JsonLines(out)
    return _Terminal(out) if out.isatty() else _Lines(out)
