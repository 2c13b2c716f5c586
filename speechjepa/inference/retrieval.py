"""Translation by the nearest known utterance: for closed domains, and as a baseline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from speechjepa.errors import ModelError
from speechjepa.models.encoder import EncoderOutput
from speechjepa.nn.tensor_files import save_tensors

if TYPE_CHECKING:
    from speechjepa.inference.model import SpeechModel

FOLDER = "retrieval"
PARTS = 4
"""Stretches of equal length that an utterance is averaged over: keeps the order of what is said."""
MAX_CHANNELS = 128
"""Of an embedding, the directions in which utterances differ most."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """An utterance whose translation is known."""

    id: str
    """Of the pair."""
    units: tuple[int, ...] = ()
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class Match:
    """The nearest known utterance."""

    known: Known
    confidence: float
    """Cosine of the two embeddings, 0 (unrelated, or worse) to 1 (the same)."""


class Retrieval:
    """Known utterances, found again by what they sound like.

    An embedding is the mean of the encoder's frames in `PARTS` stretches, whitened by the
    principal components of the known utterances, of length 1.

    Args:
        known: Utterances with their translations.
        embeddings: (N, P) float32 of length 1.
        mean: (D,) of the pooled frames.
        projection: (D, P) whitening.
        layer: Of the encoder.
    """

    def __init__(
        self,
        known: Sequence[Known],
        embeddings: Tensor,
        mean: Tensor,
        projection: Tensor,
        layer: int,
    ) -> None:
        self.known = list(known)
        self.embeddings = embeddings
        self.mean = mean
        self.projection = projection
        self.layer = layer

    @classmethod
    def fit(cls, known: Sequence[Known], pooled: Tensor, layer: int) -> Retrieval:
        """Remember utterances by their pooled frames (N, D)."""
        if len(known) != len(pooled) or not len(known):
            raise ValueError(f"{len(known)} utterances must have as many rows, not {len(pooled)}")
        pooled = pooled.float()
        mean = pooled.mean(dim=0)
        _, scales, directions = torch.linalg.svd(pooled - mean, full_matrices=False)
        # A share of the largest spread keeps directions that hardly vary from being all noise.
        number = max(1, min(MAX_CHANNELS, int((scales > 1e-5 * scales[0]).sum())))
        spread = scales[:number] / max(1, len(known)) ** 0.5
        weights = 1.0 / (spread + 0.1 * spread[0].clamp(min=1e-6))
        projection = directions[:number].T * weights
        embeddings = _unit_length((pooled - mean) @ projection)
        return cls(known, embeddings, mean, projection, layer)

    def find(self, pooled: Tensor) -> list[Match]:
        """Return the nearest known utterance of each row of pooled frames (B, D)."""
        found = _unit_length((pooled.float().cpu() - self.mean) @ self.projection)
        best, places = (found @ self.embeddings.T).max(dim=1)
        return [
            Match(known=self.known[place], confidence=max(0.0, min(1.0, value)))
            for value, place in zip(best.tolist(), places.tolist(), strict=True)
        ]

    def save(self, bundle: Path) -> Path:
        """Write it into a bundle; return its folder."""
        folder = bundle / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            "embeddings": self.embeddings.contiguous(),
            "mean": self.mean.contiguous(),
            "projection": self.projection.contiguous(),
        }
        save_tensors(tensors, folder / "model.safetensors")
        entry = {"layer": self.layer, "known": [vars(known) for known in self.known]}
        text = json.dumps(entry, ensure_ascii=False)
        (folder / "known.json").write_text(text + "\n", encoding="utf-8")
        return folder


def load_retrieval(bundle: Path) -> Retrieval:
    """Read what `Retrieval.save` wrote.

    Raises:
        ModelError: The bundle holds none, or it is damaged.
    """
    folder = bundle / FOLDER
    try:
        entry = json.loads((folder / "known.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "model.safetensors")
        known = [
            Known(id=row["id"], units=tuple(row["units"]), text=row["text"])
            for row in entry["known"]
        ]
        return Retrieval(
            known, tensors["embeddings"], tensors["mean"], tensors["projection"], entry["layer"]
        )
    except FileNotFoundError:
        raise ModelError(f"{bundle}: holds no known utterances to retrieve") from None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"{folder}: is damaged: {error}") from error


def pool(output: EncoderOutput, layer: int) -> Tensor:
    """Return pooled frames (B, PARTS * D) of a layer."""
    assert output.layers is not None
    frames = output.layers[layer].float().cpu()
    rows = []
    for row, size in enumerate(output.lengths.tolist()):
        parts = np.array_split(np.arange(max(1, size)), PARTS)
        means = [
            frames[row, part].mean(dim=0) if len(part) else frames[row, :size].mean(dim=0)
            for part in map(torch.from_numpy, parts)
        ]
        rows.append(torch.cat(means))
    return torch.stack(rows)


def embed(model: SpeechModel, waveform: NDArray[np.float32], layer: int) -> Tensor:
    """Return the pooled frames (1, D) of a waveform (S,) at the model's rate."""
    return pool(model.encode(torch.from_numpy(waveform)[None], return_layers=True), layer)


def _unit_length(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp(min=1e-8)
