"""The part of the report that shows the representation: frames in two dimensions, by character."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechjepa.errors import AudioError
from speechjepa.workflow.report_svg import escape, hue

NUM_UTTERANCES = 50
MAX_SECONDS = 15.0
"""Longer utterances are cut."""
MAX_DOTS = 1800
NUM_COLOURS = 16
"""Characters with a colour of their own; the rest is grey."""


def picture(bundle: Path, predictions: Sequence[dict[str, Any]]) -> str:
    """Draw encoder frames of dev utterances on their first two principal components.

    A frame's colour is the character that the best CTC path gives it; blank frames are left out.

    Args:
        bundle: The fine-tuned model.
        predictions: Lines of predictions.jsonl, to know which utterances there are.
    """
    if not (bundle / "config.json").exists():
        return '<p class="none">There is no fine-tuned model here to colour the frames by.</p>'
    features, characters = _collect(bundle, predictions)
    if len(features) < 3:
        return '<p class="none">The model writes blanks only: there is nothing to colour by.</p>'
    places, explained = principal_components(features)
    keep = np.random.default_rng(0).permutation(len(places))[:MAX_DOTS]
    num_utterances = min(NUM_UTTERANCES, len(predictions))
    return (
        f"<p>{len(keep)} encoder frames of {num_utterances} dev utterances on the first two "
        f"principal components ({explained:.0%} of the variance), coloured by the character that "
        "the model hears there; frames where it hears none are left out. Point at a character to "
        f'see it alone.</p><div class="wide">'
        f"{_scatter(places[keep], [characters[i] for i in keep])}</div>"
    )


def _collect(
    bundle: Path, predictions: Sequence[dict[str, Any]]
) -> tuple[NDArray[np.float64], list[str]]:
    """Return the non-blank frames (N, D) of some utterances, and the character of each."""
    import torch

    from speechjepa.audio.files import read_audio
    from speechjepa.inference.model import load

    model = load(bundle)
    head = model.bundle.ctc
    if head is None:
        return np.empty((0, 1)), []
    vocabulary = model.vocabulary
    symbols = vocabulary.to_list()
    chosen = np.random.default_rng(0).permutation(len(predictions))[:NUM_UTTERANCES]
    rows: list[NDArray[np.float64]] = []
    characters: list[str] = []
    for index in sorted(chosen):
        item = predictions[index]
        seconds = min(item["duration"] or MAX_SECONDS, MAX_SECONDS)
        try:
            waveform = read_audio(item["audio_path"], start=item["start"], duration=seconds)
        except AudioError:  # said beside the player, and counted by evaluate
            continue
        batch = torch.from_numpy(waveform)[None]  # (1, S)
        lengths = torch.tensor([len(waveform)])
        with torch.inference_mode():
            output = model.encode(batch, lengths)
            path = head.head_logits(output.features)[0].argmax(dim=-1).cpu().numpy()
        features = output.features[0].float().cpu().numpy()  # (T, D)
        # The head may write several characters per encoder frame.
        frames = np.arange(len(path)) * len(features) // max(len(path), 1)
        spoken = np.flatnonzero(path != vocabulary.blank_id)
        rows.append(features[frames[spoken]].astype(np.float64))
        names = {vocabulary.word_boundary_id: " "}
        characters += [names.get(int(i), symbols[i]) for i in path[spoken]]
    return (np.concatenate(rows) if rows else np.empty((0, 1))), characters


def principal_components(features: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return (N, 2) places on the first two components, and their share of the variance."""
    centred = features - features.mean(axis=0)
    covariance = centred.T @ centred
    values, vectors = np.linalg.eigh(covariance)
    total = float(values.sum()) or 1.0
    return centred @ vectors[:, :-3:-1], float(values[:-3:-1].sum()) / total


def _scatter(places: NDArray[np.float64], characters: Sequence[str]) -> str:
    width, height, margin = 1000, 560, 24
    low, high = np.percentile(places, [0.5, 99.5], axis=0)
    span = np.maximum(high - low, 1e-9)
    shown = np.clip((places - low) / span, -0.02, 1.02)
    across = margin + shown[:, 0] * (width - 2 * margin)
    down = height - margin - shown[:, 1] * (height - 2 * margin)
    counts = Counter(characters)
    named = [character for character, _ in counts.most_common(NUM_COLOURS)]
    groups, labels, keys = [], [], []
    centres = _apart(
        np.array(
            [
                np.median(
                    [(across[i], down[i]) for i, c in enumerate(characters) if c == name], axis=0
                )
                for name in named
            ]
        )
    )
    for index, character in enumerate([*named, None]):
        mine = [i for i, c in enumerate(characters) if (c if c in named else None) == character]
        if not mine:
            continue
        colour = "var(--faint)" if character is None else hue(index, len(named))
        dots = "".join(f'<circle cx="{across[i]:.0f}" cy="{down[i]:.0f}" r="3"/>' for i in mine)
        groups.append(f'<g class="dots" data-key="{index}" style="fill:{colour}">{dots}</g>')
        name = "others" if character is None else "space" if character == " " else escape(character)
        keys.append(
            f'<button type="button" class="dot-key" data-key="{index}" style="--colour:{colour}">'
            f"{name} <small>{len(mine)}</small></button>"
        )
        if character is not None:
            x, y = centres[index]
            labels.append(
                f'<text class="centre" data-key="{index}" x="{x:.0f}" y="{y:.0f}" '
                f'style="fill:{colour}">{"␣" if character == " " else name}</text>'
            )
    return (
        f'<div class="dot-keys">{"".join(keys)}</div>'
        f'<svg class="scatter" viewBox="0 0 {width} {height}" role="img">'
        f"{''.join(groups[::-1])}{''.join(labels)}</svg>"
    )


def _apart(centres: NDArray[np.float64], distance: float = 27.0) -> NDArray[np.float64]:
    """Move labels (N, 2) until no two are closer than `distance`, or little is gained by it."""
    moved = centres + np.random.default_rng(0).normal(0, 0.5, centres.shape)
    for _ in range(60):
        gaps = moved[:, None] - moved[None]  # (N, N, 2)
        lengths = np.maximum(np.linalg.norm(gaps, axis=-1), 1e-6)
        overlap = np.clip(distance - lengths, 0, None)
        np.fill_diagonal(overlap, 0)
        if not overlap.any():
            break
        moved += (gaps / lengths[..., None] * overlap[..., None] / 2).sum(axis=1)
    return moved
