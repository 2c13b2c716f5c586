"""Small charts as SVG text: lines, bars, dots, heat maps. Colours are CSS variables of the page."""

from __future__ import annotations

import base64
import html
import json
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_POINTS = 300
"""Points of a line that are drawn; longer ones are averaged in groups."""


def escape(text: object) -> str:
    """Return text that is safe between tags and in attributes; control characters are shown."""
    visible = "".join(
        c if c >= " " or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in str(text)
    )
    return html.escape(visible, quote=True)


def number(value: float) -> str:
    """Write a number for people: three significant digits, thousands as k, no trailing zeros."""
    if not math.isfinite(value):
        return "–"
    for limit, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            scale = 1e6 if suffix == "M" else 1e3
            return f"{value / scale:.3g}{suffix}"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round numbers from `low` to `high`."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Line:
    """A series of a line chart."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def thin(line: Line, limit: int = MAX_POINTS) -> Line:
    """Return the line with finite values only, averaged in groups where it has too many."""
    pairs = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    size = math.ceil(len(pairs) / limit) if pairs else 1
    groups = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    x = [sum(p[0] for p in group) / len(group) for group in groups]
    y = [sum(p[1] for p in group) / len(group) for group in groups]
    if size > 1:  # the end of a line is what people read
        x[-1], y[-1] = pairs[-1]
    return Line(line.name, x, y)


def line_chart(
    lines: Sequence[Line], *, from_zero: bool = False, floor: float | None = None
) -> str:
    """Draw lines over steps, with the last value of each beside its name.

    Args:
        lines: At least one with a finite value.
        from_zero: The vertical axis begins at 0.
        floor: Draw a dashed line here: below it, something is wrong.
    """
    width, height, left, right, top, bottom = 400, 190, 46, 14, 8, 24
    lines = [line for line in map(thin, lines) if line.x]
    ys = [y for line in lines for y in line.y] + ([] if floor is None else [floor])
    low, high = (min(0.0, *ys) if from_zero else min(ys)), max(ys)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = (low if from_zero and low == 0 else low - pad), high + pad
    x_low, x_high = min(line.x[0] for line in lines), max(line.x[-1] for line in lines)
    x_low = 0.0 if x_low < 0.1 * x_high else x_low
    x_span = (x_high - x_low) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (x - x_low) / x_span * (width - left - right)
        return across, height - bottom - (y - low) / (high - low) * (height - top - bottom)

    parts = [_grid(width, height, left, right, bottom, low, high, x_low, x_high, place)]
    if floor is not None:
        y = place(x_low, floor)[1]
        parts.append(
            f'<line class="floor" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
    for index, line in enumerate(lines):
        points = [place(x, y) for x, y in zip(line.x, line.y, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        if len(points) > 1:
            parts.append(f'<polyline class="line s{index}" points="{path}"/>')
        x, y = points[-1]
        parts.append(f'<circle class="end s{index}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    data = [
        {"n": line.name, "x": [round(x) for x in line.x], "y": [float(f"{y:.4g}") for y in line.y]}
        for line in lines
    ]
    frame = {"l": left, "r": width - right, "lo": x_low, "hi": x_low + x_span, "h": height - bottom}
    return _svg(width, height, "".join(parts), "chart", series=data, frame=frame)


def _grid(
    width: int,
    height: int,
    left: int,
    right: int,
    bottom: int,
    low: float,
    high: float,
    x_low: float,
    x_high: float,
    place: Any,
) -> str:
    parts = []
    for value in ticks(low, high):
        y = place(x_low, value)[1]
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{left - 6}" y="{y + 3.5:.1f}" text-anchor="end">'
            f"{number(value)}</text>"
        )
    for value in ticks(x_low, x_high):
        x = place(value, low)[0]
        anchor = "end" if x > width - right - 12 else "middle"
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{height - bottom + 15}" text-anchor="{anchor}">'
            f"{number(value)}</text>"
        )
    return "".join(parts)


def _svg(width: int, height: int, content: str, kind: str, **data: Any) -> str:
    attributes = "".join(
        f' data-{name}="{escape(json.dumps(value, separators=(",", ":")))}"'
        for name, value in data.items()
    )
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img"{attributes}>{content}</svg>'
    )


def legend(lines: Sequence[Line]) -> str:
    """Name the lines of a chart, in their colours, with their last values."""
    items = [
        f'<span class="key s{index}">{escape(line.name)} <b>{number(line.y[-1])}</b></span>'
        for index, line in enumerate(line for line in map(thin, lines) if line.x)
    ]
    return f'<div class="legend">{"".join(items)}</div>'


def png(pixels: NDArray[np.uint8]) -> str:
    """Return an image (height, width, 3) as a data URI."""
    height, width, _ = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    content = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


_STOPS = np.array(
    [[9, 12, 30], [42, 24, 92], [112, 35, 121], [187, 56, 102], [240, 112, 66], [252, 190, 98]]
    + [[255, 249, 214]],
    dtype=np.float64,
)


def heat(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colour an array of values in [0, 1], dark to light."""
    position = np.clip(np.nan_to_num(values), 0, 1) * (len(_STOPS) - 1)
    lower = np.minimum(position.astype(int), len(_STOPS) - 2)
    share = (position - lower)[..., None]
    colours = _STOPS[lower] * (1 - share) + _STOPS[lower + 1] * share
    return colours.round().astype(np.uint8)


def hue(index: int, count: int) -> str:
    """Return one of `count` colours of equal lightness that differ as far as they can."""
    # Neighbours in the legend get distant hues; lightness comes from the page's theme.
    order = [*range(0, count, 2), *range(1, count, 2)]
    return f"oklch(var(--dot-light) 0.15 {360 * order[index] / count + 20:.0f})"
