"""Timed transcripts beside a recording: ELAN's .eaf and Praat's .TextGrid."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import ParseError

from speechjepa.errors import DataError

ANNOTATION_SUFFIXES = (".eaf", ".textgrid")
USUAL_TIERS = ("transcript", "transcription", "text", "tx", "utterance", "utterances", "sentence")
"""Names of a tier that is taken where there are several, in this order, whatever their case; with
one tier for each speaker, `tx@ana` and `tx@ben`, all of that name."""
UNUSED_TIER = "default"
"""A new document of ELAN has this tier; it does not count while it is empty."""


class Annotation(NamedTuple):
    """A stretch of a recording with its transcript."""

    start: float
    """Seconds."""
    end: float
    """Seconds."""
    text: str
    speaker: str | None = None
    """As ELAN's tier names its participant; None = it does not."""


def read_annotations(path: Path, tier: str | None = None) -> list[Annotation]:
    """Return the transcribed stretches in order of time; empty ones are left out.

    Args:
        path: An .eaf or .TextGrid file.
        tier: Its name, or a pattern for several that are read together, `tx@*`; or several of
            these with commas between them, of which the first that the file has is taken. None =
            the only tier, or the one with a usual name (`USUAL_TIERS`).

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
    if tier is None and len(tiers) > 1 and not _filled(tiers.get(UNUSED_TIER, [])):
        tiers.pop(UNUSED_TIER, None)
    names = _choose(path, list(tiers), tier)
    found = [a for name in names for a in _filled(tiers[name])]
    return sorted(found, key=lambda a: (a.start, a.end, a.text, a.speaker or ""))


def _filled(annotations: list[Annotation]) -> list[Annotation]:
    return [a for a in annotations if a.text.strip() and a.end > a.start]


def _choose(path: Path, names: list[str], tier: str | None) -> list[str]:
    if tier is not None:
        for wanted in [tier] if tier in names else [part.strip() for part in tier.split(",")]:
            exact = [name for name in names if name == wanted]
            found = exact or [name for name in names if fnmatchcase(name, wanted)]
            if found:
                return found
        raise DataError(
            f"has no tier {tier!r}; it has {', '.join(names) or 'none'}. With a comma between "
            "names, text=ONE,OTHER, the first that a file has is taken",
            path=path,
        )
    if len(names) == 1:
        return names
    for usual in USUAL_TIERS:
        found = [name for name in names if name.lower().partition("@")[0] == usual]
        if found:
            return found
    raise DataError(
        f"has the tiers {', '.join(names) or 'none'}: say which one holds the transcript, "
        "--column text=TIER, or data.train.columns.text=TIER in a recipe; 'ab@*' reads all that "
        "begin so",
        path=path,
    )


def _read_eaf(path: Path) -> dict[str, list[Annotation]]:
    from pympi.Elan import Eaf

    document = Eaf(str(path), suppress_version_warning=True)
    return {
        name: [
            Annotation(
                entry[0] / 1000,
                entry[1] / 1000,
                entry[2] or "",
                document.get_parameters_for_tier(name).get("PARTICIPANT") or None,
            )
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
