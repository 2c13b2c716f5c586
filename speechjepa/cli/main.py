"""The `speechjepa` command: find the sub-command, set up logging, turn errors into exit codes."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from speechjepa import __version__
from speechjepa.errors import SpeechJepaError

# Which module of `speechjepa.cli` holds which command, as `--help` groups them. Each module
# has `add_parser(subparsers)` and `run(args) -> int`, and imports what is heavy inside functions.
GROUPS = {
    "make a model": {
        "run": "run",
        "recipes": "run",
        "check": "check",
        "select": "select",
        "pretrain": "stages",
        "finetune": "stages",
        "evaluate": "stages",
    },
    "use it": {
        "transcribe": "transcribe",
        "align": "align",
        "translate": "translate",
        "serve": "serve",
        "surprise": "surprise",
    },
    "speech without letters": {"units": "units", "voice": "voice"},
    "models themselves": {"info": "info", "convert": "convert"},
}
COMMANDS = {name: module for group in GROUPS.values() for name, module in group.items()}


class _Parser(argparse.ArgumentParser):
    """Lets settings and corpora stand anywhere among the options."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; argparse gives a `*` positional only what stands before the first option."""
        found, late = self.parse_known_args(args, namespace)
        takes = next((name for name in ("overrides", "data") if hasattr(found, name)), None)
        unknown = late if takes is None else [text for text in late if text.startswith("-")]
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        if takes is not None:
            setattr(found, takes, [*getattr(found, takes), *late])
        return found


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every sub-command."""
    parser = _Parser(
        prog="speechjepa",
        usage="speechjepa [-h] [--version] [--verbose] COMMAND ...",
        description="From a folder of speech and minutes of transcripts to a speech recogniser.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"speechjepa {__version__}")
    parser.add_argument("--verbose", action="store_true", help="say more, on stderr")
    subparsers = parser.add_subparsers(
        dest="command",
        metavar="COMMAND",
        required=True,
        prog="speechjepa",
        help=argparse.SUPPRESS,  # the epilog lists them
    )
    for module_name in dict.fromkeys(COMMANDS.values()):
        importlib.import_module(f"speechjepa.cli.{module_name}").add_parser(subparsers)
    for subparser in subparsers.choices.values():
        with contextlib.suppress(argparse.ArgumentError):  # the command has its own --verbose
            subparser.add_argument(
                "--verbose", action="store_true", default=argparse.SUPPRESS, help="say more"
            )
    parser.epilog = _commands({a.dest: a.help or "" for a in subparsers._choices_actions})
    return parser


def _commands(helps: Mapping[str, str]) -> str:
    """Return the list of commands, group by group."""
    width = max(60, min(100, shutil.get_terminal_size().columns - 2))
    lines = []
    for title, group in GROUPS.items():
        lines.append(f"{title}:")
        for name in group:
            start = f"  {name:<11} "
            lines += textwrap.wrap(
                helps[name], width, initial_indent=start, subsequent_indent=" " * len(start)
            )
        lines.append("")
    return "\n".join([*lines, "`speechjepa COMMAND --help` says more of each."])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, the command's own (check: 1 = training would break), 2 for an error
        that is explained on stderr, 130 after Ctrl-C.
    """
    _write_utf8()
    args = build_parser().parse_args(argv)
    _set_up_logging(bool(args.verbose))
    module = importlib.import_module(f"speechjepa.cli.{COMMANDS[args.command]}")
    try:
        return int(module.run(args))
    except SpeechJepaError as error:
        logging.getLogger("speechjepa").debug("where it happened:", exc_info=True)
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of stdout, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a full disk, a folder that may not be written
        logging.getLogger("speechjepa").debug("where it happened:", exc_info=True)
        print(f"error: {error}", file=sys.stderr)
        return 2


def _write_utf8() -> None:
    """Let stdout and stderr hold every letter, whatever the locale; half a surrogate is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(encoding="utf-8", errors="backslashreplace")


def _set_up_logging(verbose: bool) -> None:
    logger = logging.getLogger("speechjepa")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not any(isinstance(handler, _ToStderr) for handler in logger.handlers):
        logger.addHandler(_ToStderr())


class _ToStderr(logging.Handler):
    """Write messages to whatever stderr is when they come, with the time in front."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        clear = "\r\x1b[2K" if sys.stderr.isatty() else ""  # a progress line may stand there
        print(clear + self.format(record), file=sys.stderr, flush=True)
