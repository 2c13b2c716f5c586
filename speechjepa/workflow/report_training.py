"""The part of the report about training: curves, and one utterance seen by the pretrained model."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from speechjepa.errors import DataError
from speechjepa.workflow.report_svg import Line, escape, heat, legend, line_chart, number, png

# Charts in the order of the page: title, what to look for, metrics (name in the log -> in the key).
_PRETRAINING = (
    ("Loss", "Should fall, fast at first.", {"loss/total": "total"}),
    (
        "Spread of the representation",
        "Standard deviation over frames. Falling towards 0 is collapse.",
        {"monitor/target_std": "targets", "monitor/prediction_std": "predictions"},
    ),
    (
        "Effective rank",
        "RankMe: how many directions are in use. 1 is collapse.",
        {"monitor/rankme": "RankMe"},
    ),
    (
        "Dead dimensions",
        "Channels that no longer vary. Should stay near 0.",
        {"monitor/dead_dimensions": "dead"},
    ),
    (
        "Code perplexity",
        "How many codes of the quantizer are in use; falling to 2 is collapse.",
        {"monitor/code_perplexity": "perplexity"},
    ),
    (
        "Probe",
        "Dev CER (%) of a small CTC head on the frozen encoder. What counts is that it falls.",
        {"monitor/probe_cer": "CER"},
    ),
    ("Speed", "Hours of audio per hour.", {"rate/audio_hours_per_hour": "h/h"}),
    ("Learning rate", "", {"learning_rate": "learning rate"}),
)
_FINETUNING = (
    (
        "CTC loss",
        "Stuck near 3 means that only blanks are written.",
        {"loss/ctc": "train", "dev/ctc": "dev"},
    ),
    ("Dev error", "Per cent, best path, no language model.", {"dev/cer": "CER", "dev/wer": "WER"}),
    (
        "Blank ratio",
        "Share of frames that say nothing. At 1 the model is silent.",
        {"monitor/blank_ratio": "blank"},
    ),
    ("Learning rate", "", {"learning_rate": "learning rate", "learning_rate/head": "head"}),
)
_TRANSLATION = (
    (
        "Loss",
        "Of units, or of characters. Should fall, fast at first.",
        {"loss/ctc": "train", "loss/tokens": "train"},
    ),
    (
        "Dev error",
        "Tokens that are wrong, per cent; the model of the lowest point is kept.",
        {"dev/token_error_rate": "token error rate"},
    ),
    (
        "Blank ratio",
        "Share of places that write nothing. At 1 the model is silent.",
        {"monitor/blank_ratio": "blank"},
    ),
    ("Learning rate", "", {"learning_rate": "learning rate", "learning_rate/head": "head"}),
)
_PERCENT = {"monitor/probe_cer", "dev/cer", "dev/wer", "dev/token_error_rate"}
_NOUNS = {
    "pretrain": "pretraining",
    "finetune": "fine-tuning",
    "translate": "trained translator",
    "recogniser": "recogniser",
}
_FROM_ZERO = {
    "Dead dimensions",
    "Speed",
    "Learning rate",
    "Blank ratio",
    "Spread of the representation",
}


def read_metrics(path: Path) -> dict[str, Line]:
    """Read a wide metrics.csv into one line per metric; empty where there is no file.

    Raises:
        DataError: A row has no step, or a value is no number.
    """
    if not path.exists():
        return {}
    points: dict[str, list[tuple[float, float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                step = float(row.pop("step"))
                for name, value in row.items():
                    if value:
                        points.setdefault(name, []).append((step, float(value)))
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"no number where one should be: {error}", path=path, line=line
                ) from error
    return {
        name: Line(name, [step for step, _ in pairs], [value for _, value in pairs])
        for name, pairs in points.items()
    }


def curves(run_dir: Path, stages: Sequence[str] = ("pretrain", "finetune")) -> str:
    """Return the charts of stages, by their folders, or words where there was none."""
    parts = []
    described = {
        "pretrain": ("Pretraining, without labels", _PRETRAINING),
        "finetune": ("Fine-tuning, with labels", _FINETUNING),
        "translate": ("The translator", _TRANSLATION),
        "recogniser": ("The recogniser that it is measured by", _FINETUNING),
    }
    for folder in stages:
        title, charts = described[folder]
        metrics = read_metrics(run_dir / folder / "metrics.csv")
        parts.append(f"<h3>{title}</h3>")
        figures = [_figure(*chart, metrics) for chart in charts]
        losses = {name: line for name, line in metrics.items() if _is_part(name)}
        if losses and folder == "pretrain":
            figures.insert(1, _figure("Parts of the loss", "", {n: n[5:] for n in losses}, metrics))
        drawn = "".join(figures)
        if drawn:
            parts.append(f'<div class="charts">{drawn}</div>')
        else:
            parts.append(
                f'<p class="none">This run has no {_NOUNS[folder]}: nothing was logged.</p>'
            )
    return "".join(parts)


def _is_part(name: str) -> bool:
    return name.startswith("loss/") and name != "loss/total"


def _figure(title: str, hint: str, names: dict[str, str], metrics: dict[str, Line]) -> str:
    lines = []
    for name, shown in names.items():
        line = metrics.get(name)
        if line is not None and any(map(math.isfinite, line.y)):
            scale = 100 if name in _PERCENT else 1
            lines.append(Line(shown, line.x, [value * scale for value in line.y]))
    if not lines:
        return ""
    chart = line_chart(lines, from_zero=title in _FROM_ZERO)
    return (
        f"<figure><figcaption><b>{escape(title)}</b> {escape(hint)}</figcaption>"
        f"{legend(lines)}{chart}</figure>"
    )


# ---------------------------------------------------------------------------------------------
# One utterance


def snapshot(run_dir: Path) -> str:
    """Return spectrogram, mask and similarity of one utterance, or words where there is none.

    Raises:
        DataError: The file lacks one of its arrays.
    """
    path = run_dir / "pretrain" / "snapshot.npz"
    if not path.exists():
        return '<p class="none">There is no pretrained model here to look at.</p>'
    try:
        with np.load(path, allow_pickle=False) as arrays:
            spectrogram = arrays["spectrogram"].astype(np.float64)  # (T', F)
            span_mask = arrays["span_mask"].astype(bool)  # (T,)
            similarity = arrays["similarity"].astype(np.float64)  # (T,)
            hop_seconds, name = float(arrays["hop_seconds"]), str(arrays["id"])
    except KeyError as error:
        raise DataError(f"lacks {error}; pretrain again", path=path) from error
    except (ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"is damaged ({error}); remove it", path=path) from error
    seconds = len(span_mask) * hop_seconds
    low, high = np.percentile(spectrogram, [2, 99.5])
    image = png(heat(((spectrogram - low) / max(high - low, 1e-6)).T[::-1]))
    hidden = similarity[span_mask & np.isfinite(similarity)]
    mean = f"{hidden.mean():.2f}" if len(hidden) else "–"
    return (
        f"<p>“{escape(name)}”, {seconds:.1f} s, {span_mask.mean():.0%} of it hidden (hatched). The "
        "model saw only the rest and predicted its own representation of what was hidden; below, "
        f"the similarity of each predicted frame with the true one: <b>{mean}</b> on average. 0 is "
        f'a guess that knows nothing of the frame, 1 is perfect.</p><div class="wide">'
        f"{_seen(image, span_mask, similarity, seconds)}</div>"
    )


def _seen(image: str, span_mask: np.ndarray, similarity: np.ndarray, seconds: float) -> str:
    width, left, right, top, tall, gap, low = 1000, 46, 10, 8, 190, 22, 120
    inner, bottom = width - left - right, top + tall + gap + low
    frame = inner / len(span_mask)
    parts = [
        '<defs><pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><rect width="7" height="7" class="veil"/>'
        '<line x1="0" y1="0" x2="0" y2="7" class="hatch"/></pattern></defs>',
        f'<image x="{left}" y="{top}" width="{inner}" height="{tall}" preserveAspectRatio="none" '
        f'href="{image}"/>',
        f'<text class="tick" x="{left - 6}" y="{top + 10}" text-anchor="end">8 kHz</text>',
        f'<text class="tick" x="{left - 6}" y="{top + tall}" text-anchor="end">0</text>',
    ]
    zero = top + tall + gap + low * 0.72
    scale = low * 0.68
    for value, label in ((1.0, "1"), (0.5, ".5"), (0.0, "0")):
        y = zero - value * scale
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{left - 6}" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>'
        )
    edges = np.flatnonzero(np.diff(np.concatenate([[0], span_mask.astype(int), [0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        x, length = left + start * frame, (end - start) * frame
        parts.append(
            f'<rect x="{x:.1f}" y="{top}" width="{length:.1f}" height="{tall}" fill="url(#hatch)"/>'
            f'<rect class="band" x="{x:.1f}" y="{top + tall + gap}" width="{length:.1f}" '
            f'height="{low}"/>'
        )
    for index in np.flatnonzero(np.isfinite(similarity)):
        value = float(np.clip(similarity[index], -0.4, 1))
        y, length = zero - max(value, 0) * scale, abs(value) * scale
        kind = "good" if value >= 0 else "bad"
        parts.append(
            f'<rect class="{kind}" x="{left + index * frame + 0.15 * frame:.2f}" y="{y:.1f}" '
            f'width="{frame * 0.7:.2f}" height="{max(length, 0.5):.1f}"/>'
        )
    for second in range(int(seconds) + 1):
        x = left + second / seconds * inner
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">'
            f"{number(second)} s</text>"
        )
    return f'<svg viewBox="0 0 {width} {bottom + 20}" role="img">{"".join(parts)}</svg>'
