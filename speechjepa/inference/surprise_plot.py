"""Draw surprise over time, with the loudness of the speech below it, as one SVG file."""

from __future__ import annotations

import html

import numpy as np
from numpy.typing import NDArray

from speechjepa.inference.surprise import Surprise

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _MIDDLE, _BOTTOM = 900, 320, 56, 12, 34, 220, 290
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
_MAX_POINTS = 1600


def surprise_svg(found: Surprise, name: str, loudness: NDArray[np.float32]) -> str:
    """Return an SVG document.

    Args:
        found: What to draw.
        name: Title.
        loudness: (N,) envelope of the waveform at equal distances, in [0, 1].
    """
    width = _WIDTH - _LEFT - _RIGHT
    times, error = _thin(found.times, found.error)
    top = max(float(error.max()), 0.0) * 1.05 or 1.0
    low = min(float(error.min()), 0.0)

    def x(seconds: float) -> float:
        return _LEFT + width * seconds / found.seconds

    def y(value: float) -> float:
        return _MIDDLE - (_MIDDLE - _TOP) * (value - low) / (top - low)

    curve = " ".join(f"{x(t):.1f},{y(e):.1f}" for t, e in zip(times, error, strict=True))
    mean = y(found.score)
    high = max(float(loudness.max()), 1e-6)
    places = np.linspace(0, found.seconds, len(loudness))
    shape = " ".join(
        f"{x(t):.1f},{_BOTTOM - 60 * value / high:.1f}"
        for t, value in zip(places, loudness, strict=True)
    )
    step = next((s for s in _STEPS if found.seconds / s <= 12), _STEPS[-1])
    marks = "".join(
        f'<line x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{_TOP}" y2="{_BOTTOM}" stroke="#ddd"/>'
        f'<text x="{x(t):.1f}" y="{_BOTTOM + 16}" text-anchor="middle">{t:g}</text>'
        for t in np.arange(0, found.seconds + 1e-9, step).round(3)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#333">'
        '<rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{_LEFT}" y="20" font-size="14">{html.escape(name)}: surprise '
        f"{found.score:.3f}, highest at {found.peak_time:.2f} s</text>{marks}"
        f'<text x="{_LEFT - 6}" y="{_TOP + 10}" text-anchor="end">{top:.2g}</text>'
        f'<text x="{_LEFT - 6}" y="{y(0) + 4:.1f}" text-anchor="end">0</text>'
        f'<text transform="translate(14 {(_TOP + _MIDDLE) // 2}) rotate(-90)" '
        'text-anchor="middle">surprise</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 2}" text-anchor="end">seconds</text>'
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{mean:.1f}" y2="{mean:.1f}" '
        'stroke="#999" stroke-dasharray="4 4"/>'
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(0):.1f}" y2="{y(0):.1f}" '
        'stroke="#bbb"/>'
        f'<polygon points="{_LEFT},{_BOTTOM} {shape} {_WIDTH - _RIGHT},{_BOTTOM}" fill="#bcd"/>'
        f'<polyline points="{curve}" fill="none" stroke="#b33" stroke-width="1.5"/></svg>\n'
    )


def envelope(waveform: NDArray[np.float32], points: int = 600) -> NDArray[np.float32]:
    """Return the highest level in each of `points` equal parts of a waveform (S,)."""
    edges = np.linspace(0, len(waveform), min(points, len(waveform)) + 1).astype(int)
    return np.maximum.reduceat(np.abs(waveform), edges[:-1])


def _thin(
    times: NDArray[np.float64], error: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Keep the highest error of each group where there are too many to draw."""
    size = -(-len(error) // _MAX_POINTS)
    starts = np.arange(0, len(error), size)
    return times[starts], np.maximum.reduceat(error, starts)
