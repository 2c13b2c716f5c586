"""Read the files of JSON lines that the stages of a run leave."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechjepa.errors import DataError


def read_lines(path: Path, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Read a file of JSON lines; empty where there is none.

    Raises:
        DataError: A line is not JSON or lacks a field.
    """
    if not path.exists():
        return []
    found = []
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    for line, text in enumerate(lines, start=1):
        if not text:
            continue
        try:
            item = json.loads(text)
        except ValueError as error:
            raise DataError(f"is not JSON: {error}", path=path, line=line) from error
        missing = [key for key in wanted if key not in item]
        if missing:
            raise DataError(f"lacks {', '.join(missing)}", path=path, line=line)
        found.append(item)
    return found
