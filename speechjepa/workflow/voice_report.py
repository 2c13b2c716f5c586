"""Spectrograms of voices side by side, with players, as one HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from speechjepa.audio.features import LogMel
from speechjepa.workflow.report_svg import escape, heat, png

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "figure{margin:0 0 1.5rem}img{width:100%;height:9rem;image-rendering:pixelated}"
    "audio{width:100%;height:2rem}section{margin:0 0 3rem}"
)
SAMPLE_RATE = 16000
SHADES = 24
"""Of a spectrogram: more cannot be told apart, and take three times the room."""


def write_voice_report(
    path: Path, examples: Sequence[Mapping[str, NDArray[np.float32]]], title: str = "Voices"
) -> Path:
    """Write a page that shows how the same words sound.

    Args:
        path: The page.
        examples: Of each utterance, waveforms (S,) at 16 kHz by what they are.
        title: Of the page.

    Returns:
        The page.
    """
    sections = [
        "<section>"
        + "".join(_figure(name, waveform) for name, waveform in example.items())
        + "</section>"
        for example in examples
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{escape(title)}</h1>{''.join(sections)}</html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _figure(name: str, waveform: NDArray[np.float32]) -> str:
    buffer = io.BytesIO()
    soundfile.write(
        buffer, waveform, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=0.93
    )
    audio = base64.b64encode(buffer.getvalue()).decode()
    return (
        f"<figure><figcaption>{escape(name)}, {len(waveform) / SAMPLE_RATE:.1f} s</figcaption>"
        f'<img alt="spectrogram: {escape(name)}" src="{spectrogram(waveform)}">'
        f'<audio controls preload="none" src="data:audio/ogg;base64,{audio}"></audio></figure>'
    )


def spectrogram(waveform: NDArray[np.float32]) -> str:
    """Return a log-mel spectrogram of a waveform (S,) as a data URL, low pitches at the bottom."""
    mel, _ = LogMel(normalization="global")(
        torch.from_numpy(waveform)[None], torch.tensor([len(waveform)])
    )
    values = mel[0].numpy().astype(np.float64)
    if not len(values):
        values = np.zeros((1, 80))
    low, high = np.percentile(values, [10, 99.8])
    shades = np.round(SHADES * np.clip((values - low) / max(high - low, 1e-6), 0, 1)) / SHADES
    return png(heat(shades.T[::-1]))
