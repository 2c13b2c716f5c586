"""Lists as text files, read with line numbers: lines, JSON Lines, and CSV or TSV tables."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechjepa.errors import DataError

Row = tuple[int, dict[str, Any]]
"""Line number, and column -> value."""


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror}).", path=path) from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("is UTF-16 text. Save it again as UTF-8.", path=path, line=1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"is not UTF-8 text (byte 0x{data[error.start]:02x}). {_how_to_save(data)}",
            path=path,
            line=data.count(b"\n", 0, error.start) + 1,
        ) from None
    if "\0" in text:
        raise DataError(
            "holds a NUL character: it is UTF-16 text, or no text. Save it again as UTF-8.",
            path=path,
            line=text.count("\n", 0, text.index("\0")) + 1,
        )
    return text


def _how_to_save(data: bytes) -> str:
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return "Save the file again as UTF-8."
    if any(unicodedata.category(c) == "Cc" and not c.isspace() for c in text):
        return "Save the file again as UTF-8."
    return "It looks like Windows-1252: save it as UTF-8."


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) of the lines of a UTF-8 file that are not blank."""
    # Only "\n" ends a line: str.splitlines would also cut at U+2028 inside a transcript.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip():
            yield number, line


def read_json_lines(path: Path) -> list[Row]:
    """Return the objects of a JSON Lines file with their line numbers."""
    rows: list[Row] = []
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
            raise DataError(
                f"is not valid JSON ({error}). Each line must be one JSON object.",
                path=path,
                line=number,
            ) from None
        if not isinstance(row, dict):
            raise DataError(
                f"must be a JSON object, but is a {type(row).__name__} instead.",
                path=path,
                line=number,
            )
        rows.append((number, row))
    return rows


def read_delimited(path: Path, *, delimiter: str, quoted: bool) -> tuple[list[str], list[Row]]:
    """Return the header and the rows of a CSV or TSV file, without their empty cells."""
    reader = csv.reader(
        io.StringIO(read_text(path), newline=""),
        delimiter=delimiter,
        strict=True,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    header: list[str] = []
    rows: list[Row] = []
    first = 1
    try:
        for cells in reader:
            line, first = first, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                _check_header(path, line, header)
            elif len(cells) != len(header):
                raise DataError(
                    f"has {len(cells)} columns, but the header has {len(header)}.",
                    path=path,
                    line=line,
                )
            else:
                rows.append((line, {k: v for k, v in zip(header, cells, strict=True) if v}))
    except csv.Error as error:
        raise DataError(f"is malformed ({error}).", path=path, line=first) from error
    return header, rows


def _check_header(path: Path, line: int, header: list[str]) -> None:
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled or "" in header:
        what = f'the column "{doubled[0]}" twice' if doubled and doubled[0] else "an unnamed column"
        raise DataError(f"has {what}: name each column once.", path=path, line=line)
