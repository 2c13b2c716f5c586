"""Folders that files are written into, looked at before the work begins."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from speechjepa.data.readers.common import as_line
from speechjepa.errors import ConfigError


def prepare_folder(folder: Path, what: str) -> None:
    """Make a folder and write to it, so that no hour of work is lost for want of it.

    Args:
        folder: Where.
        what: Is to be written, for the message: "transcripts".

    Raises:
        ConfigError: Nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "this is a file" if folder.is_file() else error.strerror
        raise ConfigError(
            f"{folder}: {what} cannot be written there: {reason}; give another folder"
        ) from error


def prepare_outputs(outputs: Sequence[Path], what: str) -> None:
    """Prepare the folder of files that are to be written side by side.

    Raises:
        ConfigError: They cannot be written.
    """
    problem = folder_in_the_way(outputs)
    if problem is not None:
        raise ConfigError(f"{problem}; give another name")
    prepare_folder(outputs[0].parent, what)


def folder_in_the_way(outputs: Sequence[Path]) -> str | None:
    """Return what is wrong where one of the files to be written is a folder; None if none is."""
    folders = [str(output) for output in outputs if output.is_dir()]
    return f"a folder is where {', '.join(folders)} should be written" if folders else None


def places_of(paths: Iterable[Path]) -> set[tuple[int, int]]:
    """Return where files are on disk, whatever they are called; those that are not, nowhere."""
    return {_place(path) for path in paths if path.exists()}


def in_place_of_inputs(outputs: Sequence[Path], read: set[tuple[int, int]]) -> str | None:
    """Return what is wrong where a file to be written is one that is read; None if none is.

    Args:
        outputs: To be written.
        read: `places_of` what is read.
    """
    own = [str(output) for output in outputs if output.exists() and _place(output) in read]
    if not own:
        return None
    return f"{', '.join(own)} is what is read here, and would be lost; give another folder with -o"


def _place(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def tell_kept(kept: Sequence[Path]) -> None:
    """Say once, on stderr, which files were there already and stay as they are."""
    if kept:
        many = "file is" if len(kept) == 1 else "files are"
        print(
            f"{len(kept)} {many} there already and left alone, the first {as_line(str(kept[0]))}; "
            "--overwrite replaces what is there",
            file=sys.stderr,
        )
