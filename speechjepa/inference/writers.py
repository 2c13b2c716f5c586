"""Write transcripts as txt, srt, vtt, tsv, json, ELAN's eaf or Praat's TextGrid."""

from __future__ import annotations

import json
import math
import os
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechjepa.data.readers.common import as_text
from speechjepa.errors import ConfigError
from speechjepa.inference.annotation_writers import eaf, textgrid

LINE_CHARACTERS = 42
"""Characters on a subtitle's line; two lines are shown at once."""
CUE_CHARACTERS = 2 * LINE_CHARACTERS
CUE_SECONDS = 7.0
"""A subtitle that would stay longer than this is divided."""
SHORTEST_CUE_SECONDS = 1.0
"""A shorter subtitle stays until then, or until the next one."""


@dataclass(frozen=True, kw_only=True)
class Cue:
    """One subtitle; times in seconds."""

    start: float
    end: float
    text: str


def parse_formats(names: str) -> tuple[str, ...]:
    """Return the formats that `names` lists: one, several parted by commas, or "all"."""
    if names == "all":
        return tuple(FORMATS)
    known = {name.lower(): name for name in FORMATS}
    given = (name.strip() for name in names.split(","))
    formats = tuple(dict.fromkeys(known.get(name.lower(), name) for name in given))
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(
                f"the format must be one of {', '.join(FORMATS)} or all, but is {name!r} instead"
            )
    return formats


def format_result(result: dict[str, Any], format_name: str, *, word_timestamps: bool = True) -> str:
    """Return a transcript as the text of a file.

    Args:
        result: What `transcribe` returns. Words, if it holds any, are where subtitles are divided.
        format_name: One of `FORMATS`.
        word_timestamps: Whether json shows the words.
    """
    if format_name == "json" and not word_timestamps:
        result = without_words(result)
    return FORMATS[format_name](result)


def without_words(result: dict[str, Any]) -> dict[str, Any]:
    """Return a transcript whose segments do not list their words."""
    segments = [
        {key: value for key, value in segment.items() if key != "words"}
        for segment in result["segments"]
    ]
    return {**result, "segments": segments}


def output_paths(base: Path, formats: Iterable[str]) -> dict[str, Path]:
    """Return the file of each format: `base` and the format's suffix."""
    return {name: base.with_name(f"{base.name}.{name}") for name in formats}


def write_result(
    result: dict[str, Any],
    outputs: Iterable[Path],
    *,
    recording: Path | None = None,
    overwrite: bool = False,
    word_timestamps: bool = True,
) -> list[Path]:
    """Write a transcript to files whose suffixes say the formats; return those written.

    A file that is there already is left as it is unless `overwrite`. Each file appears whole or
    not at all.

    Args:
        result: What `transcribe` returns.
        outputs: Files to write; folders are made as needed.
        recording: What was transcribed; an ELAN document names it.
        overwrite: Replace files that are there.
        word_timestamps: Whether json shows the words.
    """
    written = []
    for path in outputs:
        if path.exists() and not overwrite:
            continue
        named = result if recording is None else {**result, "path": as_text(str(recording))}
        shown = named if path.suffix == ".eaf" else result
        text = format_result(shown, path.suffix[1:], word_timestamps=word_timestamps)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
        try:
            unfinished.write_text(text, encoding="utf-8", newline="\n")
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
        written.append(path)
    return written


def subtitle_cues(result: dict[str, Any]) -> list[Cue]:
    """Divide segments into subtitles that can be read: two lines, seven seconds at most.

    Only segments that carry words can be divided; the others stay whole.
    """
    cues: list[Cue] = []
    for segment in result["segments"]:
        words = segment.get("words")
        if words:
            cues += _divide(words)
        elif segment["text"].strip():  # a translation may have found nothing
            cues.append(Cue(start=segment["start"], end=segment["end"], text=segment["text"]))
    # Rounded down, so that no time is beyond the file when it is written in milliseconds.
    end_of_audio = math.floor(result["duration"] * 1000) / 1000
    limits = [*(cue.start for cue in cues[1:]), end_of_audio][: len(cues)]
    return [
        Cue(
            start=cue.start,
            end=max(cue.end, min(cue.start + SHORTEST_CUE_SECONDS, limit)),
            text=cue.text,
        )
        for cue, limit in zip(cues, limits, strict=True)
    ]


def _divide(words: Sequence[dict[str, Any]]) -> list[Cue]:
    text = " ".join(word["word"] for word in words)
    start, end = words[0]["start"], words[-1]["end"]
    if len(words) == 1 or (len(text) <= CUE_CHARACTERS and end - start <= CUE_SECONDS):
        return [Cue(start=start, end=end, text=text)]

    def worth(position: int) -> float:
        """A long pause near the middle of the text is the best place."""
        pause = words[position]["start"] - words[position - 1]["end"]
        share = len(" ".join(word["word"] for word in words[:position])) / len(text)
        return float(pause - abs(share - 0.5))

    best = max(range(1, len(words)), key=worth)
    return _divide(words[:best]) + _divide(words[best:])


def timestamp(seconds: float, decimal_mark: str = ".") -> str:
    """Return HH:MM:SS.mmm; the whole is rounded once, so milliseconds never reach 1000."""
    milliseconds = round(max(0.0, seconds) * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, thousandths = divmod(milliseconds, 1000)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{decimal_mark}{thousandths:03d}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _wrap(text: str) -> str:
    lines = textwrap.wrap(
        _one_line(text), LINE_CHARACTERS, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)


def _txt(result: dict[str, Any]) -> str:
    return "".join(f"{_one_line(segment['text'])}\n" for segment in result["segments"])


def _srt(result: dict[str, Any]) -> str:
    return "".join(
        f"{number}\n{timestamp(cue.start, ',')} --> {timestamp(cue.end, ',')}\n"
        f"{_wrap(cue.text.replace('-->', '->'))}\n\n"
        for number, cue in enumerate(subtitle_cues(result), start=1)
    )


def _vtt(result: dict[str, Any]) -> str:
    cues = "".join(
        f"\n{timestamp(cue.start)} --> {timestamp(cue.end)}\n{_escape(_wrap(cue.text))}\n"
        for cue in subtitle_cues(result)
    )
    return f"WEBVTT\n{cues}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _tsv(result: dict[str, Any]) -> str:
    rows = "".join(
        f"{round(segment['start'] * 1000)}\t{round(segment['end'] * 1000)}\t"
        f"{_one_line(segment['text'])}\n"
        for segment in result["segments"]
    )
    return f"start\tend\ttext\n{rows}"


def _json(result: dict[str, Any]) -> str:
    return json.dumps(result, ensure_ascii=False, indent=2) + "\n"


FORMATS: dict[str, Callable[[dict[str, Any]], str]] = {
    "txt": _txt,
    "srt": _srt,
    "vtt": _vtt,
    "tsv": _tsv,
    "json": _json,
    "eaf": eaf,
    "TextGrid": textgrid,
}
"""Every output format, by suffix."""
