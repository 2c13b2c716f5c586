"""Timed transcripts beside a recording: ELAN's .eaf and Praat's .TextGrid."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import ParseError

from speechjepa.errors import DataError

ANNOTATION_SUFFIXES = (".eaf", ".textgrid")
USUAL_TIERS = ("transcript", "transcription", "text", "tx", "utterance", "utterances", "sentence")
"""Names of a tier that is taken where there are several, in this order, whatever their case."""


class Annotation(NamedTuple):
    """A stretch of a recording with its transcript."""

    start: float
    """Seconds."""
    end: float
    """Seconds."""
    text: str


def read_annotations(path: Path, tier: str | None = None) -> list[Annotation]:
    """Return the transcribed stretches of one tier, in order of time; empty ones are left out.

    Args:
        path: An .eaf or .TextGrid file.
        tier: Its name; None = the only one, or the one with a usual name (`USUAL_TIERS`).

    Raises:
        DataError: The file cannot be read, or it is not clear which tier is meant.
    """
    try:
        tiers = _read_eaf(path) if path.suffix.lower() == ".eaf" else _read_textgrid(path)
    except DataError:
        raise
    except (OSError, ParseError, UnicodeError) as error:
        raise DataError(f"cannot be read: {error}", path=path) from error
    except Exception as error:  # both libraries raise whatever a damaged file makes them meet
        raise DataError(f"is damaged: {type(error).__name__}: {error}", path=path) from error
    found = tiers[_choose(path, list(tiers), tier)]
    return sorted(a for a in found if a.text.strip() and a.end > a.start)


def _choose(path: Path, names: list[str], tier: str | None) -> str:
    if tier is not None:
        if tier not in names:
            raise DataError(f"has no tier {tier!r}; it has {', '.join(names) or 'none'}", path=path)
        return tier
    if len(names) == 1:
        return names[0]
    for usual in USUAL_TIERS:
        for name in names:
            if name.lower() == usual:
                return name
    raise DataError(
        f"has the tiers {', '.join(names) or 'none'}: say which one holds the transcript, "
        "`columns: {text: TIER}` in a recipe or --column text=TIER",
        path=path,
    )


def _read_eaf(path: Path) -> dict[str, list[Annotation]]:
    from pympi.Elan import Eaf

    document = Eaf(str(path), suppress_version_warning=True)
    return {
        name: [
            Annotation(entry[0] / 1000, entry[1] / 1000, entry[2] or "")
            for entry in document.get_annotation_data_for_tier(name)
        ]
        for name in document.get_tier_names()
    }


def _read_textgrid(path: Path) -> dict[str, list[Annotation]]:
    from praatio import textgrid
    from praatio.data_classes.interval_tier import IntervalTier

    grid = textgrid.openTextgrid(
        str(path), includeEmptyIntervals=False, reportingMode="silence", duplicateNamesMode="rename"
    )
    return {
        tier.name: [Annotation(float(e.start), float(e.end), e.label) for e in tier.entries]
        for tier in grid.tiers
        if isinstance(tier, IntervalTier)
    }
