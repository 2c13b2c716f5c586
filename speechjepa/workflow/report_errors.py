"""The part of the report about errors: who, how long, which utterances, which characters."""

from __future__ import annotations

import base64
import io
import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechjepa.errors import AudioError
from speechjepa.metrics.error_rate import align
from speechjepa.workflow.report_svg import escape

Prediction = dict[str, Any]
"""One line of predictions.jsonl."""

WORST, TYPICAL = 10, 3
MAX_PLAYER_SECONDS = 20.0
"""Longer utterances are cut: some 60 kB of the page each."""
MAX_BARS = 24
MAX_CHARACTERS = 30
NOTHING = "∅"
"""Stands for the missing half of a deletion or an insertion."""


def marks(intro: str) -> str:
    """Return the key of what `alignment` marks, after some words."""
    kinds = {"substitute": "another character", "insert": "inserted", "delete": "left out"}
    shown = (f'<span class="mark-{kind}">{words}</span>' for kind, words in kinds.items())
    return f"<p>{intro}: {', '.join(shown)}.</p>"


def bars(groups: dict[str, dict[str, Any]], what: str) -> str:
    """Draw the CER of groups of utterances as bars, with a mark for the rate with the LM.

    Args:
        groups: Name -> {num_utterances, cer, cer_lm}, as in results.json.
        what: What a group is, for the words where there are too many.
    """
    if not groups:
        return '<p class="none">Nothing was evaluated.</p>'
    shown = list(groups.items())
    note = ""
    if len(shown) > MAX_BARS:
        shown.sort(key=lambda item: -item[1]["cer"])
        note = f"<p>The {MAX_BARS} {what}s with the highest error, of {len(shown)}.</p>"
        shown = shown[:MAX_BARS]
    most = max(max(g["cer"], g.get("cer_lm") or 0.0) for _, g in shown) or 1.0
    rows = []
    for name, group in shown:
        with_lm = group.get("cer_lm")
        mark = title = ""
        width = 100 * group["cer"] / most
        if with_lm is not None:
            mark = f'<i class="mark" style="left:{100 * with_lm / most:.2f}%"></i>'
            title = f", with LM {with_lm:.1%}"
        rows.append(
            f'<div class="bar" title="{escape(name)}: CER {group["cer"]:.1%}{title}">'
            f'<span class="name"><bdi>{escape(name)}</bdi></span>'
            f'<span class="track"><i class="fill" style="width:{width:.2f}%"></i>'
            f'{mark}</span><span class="value">{group["cer"]:.1%}</span>'
            f'<span class="count">{group["num_utterances"]}</span></div>'
        )
    return f'{note}<div class="bars">{"".join(rows)}</div>'


# ---------------------------------------------------------------------------------------------
# Utterances


def utterances(predictions: Sequence[Prediction]) -> str:
    """Show the worst utterances and some in the middle, aligned, with a player."""
    ranked = sorted(predictions, key=lambda item: -_error(item))
    worst = [item for item in ranked if _error(item) > 0][:WORST]
    if not worst:
        return "<p>There are none: every utterance was recognised without an error.</p>"
    middle = ranked[len(worst) :]
    start = max(0, len(ranked) // 2 - len(worst) - TYPICAL // 2)
    typical = middle[start : start + TYPICAL]
    parts = [
        marks("Under what was said, what was heard"),
        "<h3>The worst</h3>",
        *map(_utterance, worst),
    ]
    if typical:
        parts += ["<h3>Typical: from the middle of the list</h3>", *map(_utterance, typical)]
    return "".join(parts)


def _error(item: Prediction) -> float:
    with_lm = item.get("cer_lm")
    return float(item["cer"] if with_lm is None else with_lm)


def _utterance(item: Prediction) -> str:
    facts = [f"CER {item['cer']:.0%}"]
    if item.get("cer_lm") is not None:
        facts.append(f"with LM {item['cer_lm']:.0%}")
    facts += [f"{item['duration']:.1f} s", item.get("speaker") or ""]
    lines = [alignment("greedy", item["reference"], item["hypothesis"])]
    with_lm = item.get("hypothesis_lm")
    if with_lm is not None and with_lm != item["hypothesis"]:
        lines.append(alignment("with LM", item["reference"], with_lm))
    return (
        f'<article class="utterance"><header><b><bdi>{escape(item["id"])}</bdi></b>'
        f"<span>{escape(' · '.join(filter(None, facts)))}</span>{_player(item)}</header>"
        f"{''.join(lines)}</article>"
    )


def alignment(label: str, reference: str, hypothesis: str, *, above: str = "said") -> str:
    """Write what was said, and under each character what was heard in its place.

    Args:
        label: What the lower line is.
        reference: The upper line.
        hypothesis: The lower line.
        above: What the upper line is.
    """
    cells: list[list[str]] = [[]]
    for operation, said, heard in align(reference, hypothesis):
        if operation == "equal" and said == " ":
            cells.append([])  # a line may break between words
            continue
        cells[-1].append(
            f'<span class="cell {operation}"><span>{_glyph(said)}</span>'
            f"<span>{_glyph(heard)}</span></span>"
        )
    words = "".join(f'<span class="word">{"".join(word)}</span>' for word in cells if word)
    if not words:
        words = '<span class="none">nothing was said and nothing heard</span>'
    return (
        '<div class="pair"><span class="labels">'
        f"<span>{escape(above)}</span><span>{escape(label)}</span></span>"
        f'<span class="aligned" dir="auto">{words}</span></div>'
    )


def _glyph(character: str | None) -> str:
    """Return what is shown for one character: spaces and bare marks made visible."""
    if character is None:
        return "·"
    if character.isspace():
        return "␣"
    carrier = "◌" if unicodedata.category(character).startswith("M") else ""
    return carrier + escape(character)


def _player(item: Prediction) -> str:
    try:
        sound = _opus(item)
    except AudioError as error:
        return f'<span class="none">no player: {escape(error.reason)}</span>'
    cut = f" (first {MAX_PLAYER_SECONDS:.0f} s)" if item["duration"] > MAX_PLAYER_SECONDS else ""
    return f'<audio controls="controls" preload="metadata" src="{sound}"></audio>{cut}'


def _opus(item: Prediction) -> str:
    from speechjepa.audio.files import read_audio

    duration = item["duration"] or None
    waveform = read_audio(
        item["audio_path"],
        start=item["start"],
        duration=MAX_PLAYER_SECONDS if duration is None else min(duration, MAX_PLAYER_SECONDS),
    )
    return opus(waveform)


def opus(waveform: NDArray[np.float32]) -> str:
    """Return a waveform (S,) at 16 kHz as a data URI, loud enough to hear."""
    import soundfile

    loudest = float(np.abs(waveform).max(initial=0.0))
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        waveform * (0.7 / loudest if loudest > 1e-4 else 1.0),  # field recordings are often faint
        16000,
        format="OGG",
        subtype="OPUS",
        compression_level=0.93,  # about 24 kbit/s
    )
    return "data:audio/ogg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


# ---------------------------------------------------------------------------------------------
# Characters


def confusion(predictions: Sequence[Prediction]) -> str:
    """Draw which character was heard for which, and list the commonest mistakes."""
    pairs: Counter[tuple[str, str]] = Counter()
    for item in predictions:
        for _, said, heard in align(item["reference"], item["hypothesis"]):
            pairs[said or NOTHING, heard or NOTHING] += 1
    wrong = [(pair, count) for pair, count in pairs.most_common() if pair[0] != pair[1]]
    if not wrong:
        return "<p>No character was confused with another.</p>"
    return f'<div class="confusion">{_matrix(pairs)}{_mistakes(wrong[:24], pairs)}</div>'


def _mistakes(wrong: Sequence[tuple[tuple[str, str], int]], pairs: Counter[tuple[str, str]]) -> str:
    said_times: Counter[str] = Counter()
    for (said, _), count in pairs.items():
        said_times[said] += count
    rows = []
    for (said, heard), count in wrong:
        if said == NOTHING:
            what, share = f"<b>{_name(heard)}</b> inserted", ""
        else:
            share = f"{count / said_times[said]:.0%} of {_name(said)}"
            what = (
                f"<b>{_name(said)}</b> left out"
                if heard == NOTHING
                else f"<b>{_name(said)}</b> heard as <b>{_name(heard)}</b>"
            )
        rows.append(f"<tr><td>{what}</td><td>{count}</td><td>{share}</td></tr>")
    return (
        "<table><thead><tr><th>Commonest mistakes</th><th>times</th><th></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _name(character: str) -> str:
    return "space" if character == " " else _glyph(character)


def _matrix(pairs: Counter[tuple[str, str]]) -> str:
    """Rows: what was said; columns: what was heard; shade: share of the row."""
    seen: Counter[str] = Counter()
    for (said, heard), count in pairs.items():
        for character in {said, heard} - {NOTHING}:
            seen[character] += count
    common = sorted(character for character, _ in seen.most_common(MAX_CHARACTERS))
    names = [*common, NOTHING]
    cell, left, top = 19, 34, 30
    size = cell * len(names)
    parts = [
        f'<text class="tick" x="{left + size / 2}" y="10" text-anchor="middle">heard</text>',
        f'<text class="tick" x="8" y="{top + size / 2}" text-anchor="middle" '
        f'transform="rotate(-90 8 {top + size / 2})">said</text>',
    ]
    for row, said in enumerate(names):
        total = sum(pairs[said, heard] for heard in names)
        parts += [
            f'<text class="glyph" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">'
            f"{_short(said)}</text>"
            for x, y in (
                (left - 8, top + row * cell + cell * 0.7),
                (left + row * cell + cell / 2, top - 6),
            )
        ]
        for column, heard in enumerate(names):
            count = pairs[said, heard]
            if not count:
                continue
            shade = max(math.sqrt(count / total), 0.08)
            parts.append(
                f'<rect class="{"right" if said == heard else "wrong"}" fill-opacity="{shade:.2f}" '
                f'x="{left + column * cell + 0.5}" y="{top + row * cell + 0.5}" '
                f'width="{cell - 1}" height="{cell - 1}">'
                f"<title>{_title(said, heard, count, total)}</title></rect>"
            )
    frame = f'<rect class="never" x="{left}" y="{top}" width="{size}" height="{size}"/>'
    return (
        f'<svg viewBox="0 0 {left + size + 4} {top + size + 4}" role="img">{frame}'
        f"{''.join(parts)}</svg>"
    )


def _short(character: str) -> str:
    return NOTHING if character == NOTHING else _glyph(character)


def _title(said: str, heard: str, count: int, total: int) -> str:
    if said == NOTHING:
        return f"{_name(heard)} inserted: {count}"
    heard_name = "nothing" if heard == NOTHING else _name(heard)
    return f"{_name(said)} heard as {heard_name}: {count} of {total}"
