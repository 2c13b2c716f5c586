"""How an encoder knows where its frames stand: convolutions over time, biases by distance."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class PositionalConvolution(nn.Module):
    """A grouped convolution over time with weight norm and GELU, whose output tells positions.

    Args:
        width: Channels D.
        kernel: Frames of the kernel; an even one sees one frame more of the past.
        groups: Groups of channels.
    """

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(convolution.weight, std=math.sqrt(4 / (kernel * width)))
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        # One norm per step of the kernel, as in the published checkpoints.
        self.convolution = nn.utils.parametrizations.weight_norm(convolution, dim=2)
        self.sizes = (width, kernel, groups)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as sizes and values: torch pickles no weight norm."""
        trained = {name: p.requires_grad for name, p in self.named_parameters()}
        return _rebuild_positions, (self.sizes, self.state_dict(), trained, self.training)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """Return the embedding (B, T, D) of frames x (B, T, D), zeros where not visible (B, T)."""
        y = self.convolution(x.transpose(1, 2))[:, :, : x.shape[1]]
        return functional.gelu(y).transpose(1, 2)


class PositionalConvolutions(nn.Module):
    """Several grouped convolutions over time, each with a layer norm and GELU (data2vec).

    https://arxiv.org/abs/2202.03555. Padding becomes silence again before every convolution.

    Args:
        width: Channels D.
        kernel: Frames of each kernel; an even one sees one frame more of the past.
        groups: Groups of channels.
        layers: How many convolutions.
    """

    def __init__(self, width: int, kernel: int, groups: int, layers: int) -> None:
        super().__init__()
        self.width = width
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)
            for _ in range(layers)
        )

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """Return the embedding (B, T, D) of frames x (B, T, D), some of them visible (B, T)."""
        for convolution in self.convolutions:
            x = x.masked_fill(~visible[:, :, None], 0.0)
            y = convolution(x.transpose(1, 2))[:, :, : x.shape[1]].transpose(1, 2)
            x = functional.gelu(functional.layer_norm(y, (self.width,)))
        return x


class RelativeBias(nn.Module):
    """A number for every attention head and distance between two frames, to be added to scores.

    WavLM, section 3.1, https://arxiv.org/abs/2110.13900 (buckets of T5,
    https://arxiv.org/abs/1910.10683). Half of the buckets are for frames that come later. In each
    half, the first half again is for one distance each, the rest grow in width by a constant
    factor up to `max_distance`; whatever is farther shares the last.

    Args:
        num_heads: Attention heads H.
        num_buckets: Buckets of distances.
        max_distance: Frames from which on distances are not told apart.
    """

    def __init__(self, num_heads: int, num_buckets: int, max_distance: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_buckets, num_heads)
        nn.init.normal_(self.table.weight, std=0.02)
        self.max_distance = max_distance

    def forward(self, positions: Tensor) -> Tensor:
        """Return biases (B, H, T, T), query before key, of frames at positions (B, T)."""
        distances = positions[:, None, :] - positions[:, :, None]  # (B, T, T)
        return self.table(self.buckets(distances)).permute(0, 3, 1, 2)

    def buckets(self, distances: Tensor) -> Tensor:
        """Return the bucket of each distance, key minus query, in frames."""
        side = self.table.num_embeddings // 2
        exact = side // 2
        size = distances.abs()
        growth = torch.log(size.float() / exact) / math.log(self.max_distance / exact)
        far = (exact + growth * (side - exact)).clamp(exact, side - 1).long()
        return torch.where(size < exact, size, far) + (distances > 0).long() * side


class BiasGate(nn.Module):
    """How much of a relative bias each frame lets into its attention, between 1 and 2 at first.

    WavLM, equations 5 to 7, https://arxiv.org/abs/2110.13900: with sigmoids a and b of the input of
    the attention, head by head, 2 + a (c b - 1).

    Args:
        head_dim: Channels of one head.
        num_heads: Attention heads H.
    """

    def __init__(self, head_dim: int, num_heads: int) -> None:
        super().__init__()
        self.projection = nn.Linear(head_dim, 8)
        nn.init.normal_(self.projection.weight, std=0.02)
        nn.init.zeros_(self.projection.bias)
        self.scale = nn.Parameter(torch.ones(1, num_heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return factors (B, H, T, 1) for the attention of frames x (B, T, D)."""
        heads = x.unflatten(2, (self.scale.shape[1], -1)).transpose(1, 2)  # (B, H, T, D / H)
        gates = torch.sigmoid(self.projection(heads).unflatten(3, (2, 4)).sum(dim=4))
        first, second = gates.chunk(2, dim=3)
        return first * (second * self.scale - 1.0) + 2.0


def _rebuild_positions(
    sizes: tuple[int, int, int], values: dict[str, Tensor], trained: dict[str, bool], training: bool
) -> PositionalConvolution:
    with torch.random.fork_rng(devices=[]):  # the values drawn here are replaced
        rebuilt = PositionalConvolution(*sizes)
    first = next(iter(values.values()))
    rebuilt.to(first.device, first.dtype).load_state_dict(values)
    for name, parameter in rebuilt.named_parameters():
        parameter.requires_grad_(trained[name])
    return rebuilt.train(training)
