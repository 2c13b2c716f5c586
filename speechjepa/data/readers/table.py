"""A CSV or TSV file whose columns the user names."""

from __future__ import annotations

from pathlib import Path

from speechjepa.data.readers.common import (
    ReadOptions,
    choose_columns,
    finish,
    make_roots,
    rows_to_utterances,
)
from speechjepa.data.readers.text_files import Row, read_delimited, read_lines
from speechjepa.data.utterance import Utterance
from speechjepa.errors import DataError


def read_table(location: Path, options: ReadOptions) -> list[Utterance]:
    """Read a CSV or TSV file with a header.

    `columns` says which column holds which field, e.g. `{"audio": "wav", "text": "words"}`; the
    usual names are found without. Relative audio paths must lie below the file's folder or the
    data root; absolute ones may point anywhere.
    """
    header, rows = read_rows(location)
    if not rows:
        raise DataError("holds no rows: there is nothing to read.", path=location, line=1)
    chosen = choose_columns(location, header, options)
    roots = make_roots(location.parent, options, allow_absolute=True)
    return finish(rows_to_utterances(location, rows, chosen, roots), location, roots.folders)


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Return the header and the rows of a CSV (commas or semicolons) or TSV file (any quoting)."""
    if path.suffix.lower() == ".csv":
        # Spreadsheets of half the world write semicolons.
        header = next(iter(read_lines(path)), (1, ""))[1]
        semicolons = ";" in header and "," not in header
        return read_delimited(path, delimiter=";" if semicolons else ",", quoted=True)
    try:
        quoted = read_delimited(path, delimiter="\t", quoted=True)
        if not any("\n" in value for _, row in quoted[1] for value in row.values()):
            return quoted
    except DataError:
        quoted = None
    # Tab-separated text is often written without quoting, with quotes inside: a quotation that
    # opens in one transcript and closes in a later one would swallow the lines between.
    try:
        return read_delimited(path, delimiter="\t", quoted=False)
    except DataError:
        if quoted is None:
            raise
        return quoted
