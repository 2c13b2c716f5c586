"""Write transcripts for the programs that people who document languages work in: ELAN and Praat."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SEGMENT_TIER = "transcript"
WORD_TIER = "words"
_MIME_TYPES = {".wav": "audio/x-wav", ".mp3": "audio/mpeg", ".mp4": "video/mp4"}


def eaf(result: dict[str, Any]) -> str:
    """Return a transcript as an ELAN document: a tier of segments and, where known, of words.

    The recording is linked by its name, so that the two can lie in one folder and move together.
    """
    from pympi.Elan import Eaf

    document = Eaf(author="speechjepa")
    document.remove_tier("default")
    recording = Path(str(result.get("path") or ""))
    if recording.name:
        document.add_linked_file(
            _for_xml(recording.name),
            relpath=f"./{_for_xml(recording.name)}",
            mimetype=_MIME_TYPES.get(recording.suffix.lower(), "audio/*"),
        )
    for name, intervals in _tiers(result):
        document.add_tier(name)
        for start, end, text in intervals:
            document.add_annotation(name, start, end, _for_xml(text))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transcript.eaf"
        document.to_file(str(path))
        return path.read_text(encoding="utf-8")


def _for_xml(name: str) -> str:
    """Return text without what XML 1.0 has no way to write: control characters, U+FFFE, U+FFFF."""
    written = "\t\n\r"
    return "".join(
        c if (c >= " " or c in written) and c not in "\ufffe\uffff" else "\N{REPLACEMENT CHARACTER}"
        for c in name
    )


def textgrid(result: dict[str, Any]) -> str:
    """Return a transcript as a Praat TextGrid, with the same tiers."""
    from praatio.data_classes.interval_tier import IntervalTier
    from praatio.data_classes.textgrid import Textgrid

    tiers = list(_tiers(result))
    ends = [end / 1000 for _, intervals in tiers for _, end, _ in intervals]
    duration = max([0.001, float(result["duration"]), *ends])
    grid = Textgrid(0, duration)
    for name, intervals in tiers:
        entries = [(start / 1000, end / 1000, text) for start, end, text in intervals]
        grid.addTier(IntervalTier(name, entries or [(0, duration, "")], 0, duration))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transcript.TextGrid"
        grid.save(str(path), format="long_textgrid", includeBlankSpaces=True)
        return path.read_text(encoding="utf-8")


def _tiers(result: dict[str, Any]) -> Iterator[tuple[str, list[tuple[int, int, str]]]]:
    """Yield tiers of (start, end, text), in milliseconds, in order and without overlap."""
    segments = result["segments"]
    yield SEGMENT_TIER, _intervals(segments, "text")
    words = [word for segment in segments for word in segment.get("words") or ()]
    if words:
        yield WORD_TIER, _intervals(words, "word")


def _intervals(items: list[dict[str, Any]], key: str) -> list[tuple[int, int, str]]:
    found: list[tuple[int, int, str]] = []
    after = 0
    for item in items:
        start = max(after, round(1000 * item["start"]))
        # Both programs refuse what has no length.
        after = max(start + 1, round(1000 * item["end"]))
        found.append((start, after, " ".join(str(item[key]).split())))
    return found
