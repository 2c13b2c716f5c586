"""Tell languages apart by the mean and the spread of an encoder's output."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from speechjepa.errors import ModelError
from speechjepa.nn.tensor_files import save_tensors

LANGUAGE_FILE = "language.safetensors"


def pool_features(features: Tensor, lengths: Tensor) -> Tensor:
    """Return mean and standard deviation over time (B, 2D) of features (B, T, D).

    Args:
        features: (B, T, D).
        lengths: (B,) valid frames, at least 1 each.
    """
    valid = torch.arange(features.shape[1], device=features.device) < lengths[:, None]  # (B, T)
    weight = valid[..., None].to(features.dtype)
    count = lengths[:, None].to(features.dtype)
    mean = (features * weight).sum(dim=1) / count
    spread = ((features - mean[:, None]) ** 2 * weight).sum(dim=1) / count
    return torch.cat([mean, spread.sqrt()], dim=-1)  # (B, 2D)


class LanguageClassifier:
    """Multinomial logistic regression on pooled features.

    Args:
        languages: N codes.
        weight: (N, 2D).
        bias: (N,).
    """

    def __init__(self, languages: Sequence[str], weight: Tensor, bias: Tensor) -> None:
        if weight.shape[:1] != (len(languages),) or bias.shape != (len(languages),):
            raise ValueError(
                f"`weight` and `bias` must have {len(languages)} rows, one for each language, but "
                f"are {tuple(weight.shape)} and {tuple(bias.shape)} instead"
            )
        self.languages = tuple(languages)
        self.weight, self.bias = weight.float(), bias.float()

    def probabilities(self, pooled: Tensor) -> Tensor:
        """Return the probability (B, N) of each language, from pooled features (B, 2D)."""
        return (pooled.float().cpu() @ self.weight.T + self.bias).softmax(dim=-1)

    def save(self, folder: Path) -> Path:
        """Write `language.safetensors` into a bundle's folder."""
        path, partial = folder / LANGUAGE_FILE, folder / f"{LANGUAGE_FILE}.partial"
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        save_tensors(tensors, partial, metadata={"languages": json.dumps(self.languages)})
        os.replace(partial, path)
        return path

    @staticmethod
    def load(folder: Path) -> LanguageClassifier | None:
        """Read what a bundle's folder holds; None where it holds none.

        Raises:
            ModelError: The file is damaged.
        """
        path = folder / LANGUAGE_FILE
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                languages = json.loads(file.metadata()["languages"])
                return LanguageClassifier(
                    languages, file.get_tensor("weight"), file.get_tensor("bias")
                )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: cannot be read: {error}") from error
