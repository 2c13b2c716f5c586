"""Pre-norm transformer blocks with rotary positions and a depthwise convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechjepa.nn.cpu import Dropout, attention, depthwise_convolution
from speechjepa.nn.packing import FrameLayout


def rotary_angles(positions: Tensor, head_dim: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (B, 1, T, head_dim) of rotary position embeddings.

    RoFormer, https://arxiv.org/abs/2104.09864.

    Args:
        positions: (B, T) frame indices in the full sequence (hidden frames count too).
        head_dim: Channels of one head.
        base: Of the geometric series of wavelengths.
    """
    exponent = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions[..., None].float() * base**-exponent  # (B, T, head_dim / 2)
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions to queries or keys x (B, H, T, head_dim)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def chunk_causal_mask(positions: Tensor, chunk_frames: int, left_chunks: int | None) -> Tensor:
    """Return the attention mask (B, 1, T, T), True = may attend, of chunk-causal attention.

    A frame sees its own chunk and `left_chunks` chunks before it (None: all of the past).

    Args:
        positions: (B, T) frame indices in the full sequence.
        chunk_frames: Frames per chunk.
        left_chunks: Past chunks that stay visible.
    """
    chunks = torch.div(positions, chunk_frames, rounding_mode="floor")
    query, key = chunks[:, :, None], chunks[:, None, :]
    allowed = key <= query
    if left_chunks is not None:
        allowed = allowed & (key >= query - left_chunks)
    return allowed[:, None]


class Chunks(NamedTuple):
    """How a sequence is divided for chunk-causal attention and convolution."""

    frames: int
    """Frames per chunk, at least 1."""
    left: int | None = None
    """Past chunks a frame may attend to; None = all of them."""


@dataclass
class BlockState:
    """What a block remembers of the past of one stream."""

    keys: Tensor
    """(1, H, P, width / H) of the frames that stay visible; their positions are not in them yet, so
    that positions never grow with the length of the stream."""
    values: Tensor
    """(1, H, P, width / H)."""
    frames: Tensor
    """(1, left padding, D) last inputs of the depthwise convolution."""


class DropPath(nn.Module):
    """Skip a residual branch for whole utterances with this probability (stochastic depth).

    https://arxiv.org/abs/1603.09382
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        kept = x.new_empty((x.shape[0], 1, 1)).bernoulli_(keep)
        return x * (kept / keep)


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if width % num_heads or (width // num_heads) % 2:
            raise ValueError(f"width {width} must divide into {num_heads} heads of even size")
        self.num_heads = num_heads
        self.dropout = dropout
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        batch, frames, width = x.shape
        heads = self.query_key_value(x).view(batch, frames, 3, self.num_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # (B, H, T, width / H) each
        cos, sin = rotary[0].to(x.dtype), rotary[1].to(x.dtype)
        x = attention(
            rotate(query, cos, sin),
            rotate(key, cos, sin),
            value,
            mask,
            self.dropout if self.training else 0.0,
        )
        return self.output(x.transpose(1, 2).reshape(batch, frames, width))

    def step(self, x: Tensor, state: BlockState, most: int | None, ahead: int = 0) -> Tensor:
        """Attend from the next chunk x (1, T, D) to itself and the past; remember `most` frames.

        The last `ahead` of its frames are not remembered.
        """
        _, frames, width = x.shape
        heads = self.query_key_value(x).view(1, frames, 3, self.num_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # (1, H, T, width / H) each
        key, value = torch.cat([state.keys, key], 2), torch.cat([state.values, value], 2)
        cos, sin = rotary_angles(torch.arange(key.shape[2], device=x.device)[None], key.shape[3])
        attended = attention(
            rotate(query, cos[:, :, -frames:], sin[:, :, -frames:]),
            rotate(key, cos, sin),
            value,
            None,
            0.0,
        )
        end = key.shape[2] - ahead
        first = 0 if most is None else max(0, end - most)
        state.keys, state.values = key[:, :, first:end].clone(), value[:, :, first:end].clone()
        return self.output(attended.transpose(1, 2).reshape(1, frames, width))


class ConvolutionModule(nn.Module):
    """Depthwise convolution over time, SiLU, pointwise projection.

    After the Conformer's (https://arxiv.org/abs/2005.08100), without its gate and batch norm.

    Args:
        width: Channels D.
        kernel_size: Odd; frames of the depthwise kernel.
        causal: See only the past, so that a stream needs no look-ahead.
    """

    def __init__(self, width: int, kernel_size: int, causal: bool) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"`kernel_size` must be odd, but is {kernel_size} instead")
        self.padding = (kernel_size - 1, 0) if causal else (kernel_size // 2, kernel_size // 2)
        self.depthwise = nn.Conv2d(width, width, (1, kernel_size), groups=width)
        self.pointwise = nn.Linear(width, width)

    def forward(self, x: Tensor, chunk_frames: int | None = None) -> Tensor:
        """Convolve x (B, T, D).

        Args:
            x: Frames, zeros where there are none.
            chunk_frames: A frame sees the past freely, and the future only inside its own chunk of
                so many frames: the dynamic chunk convolution of
                https://arxiv.org/abs/2304.09325. None = the future freely too.
        """
        if chunk_frames is None or not self.padding[1]:
            return self._convolve(functional.pad(x, (0, 0, *self.padding)))
        batch, frames, width = x.shape
        before, after = self.padding
        x = functional.pad(x, (0, 0, before, -frames % chunk_frames))
        windows = x.unfold(1, before + chunk_frames, chunk_frames)  # (B, N, D, before + chunk)
        windows = windows.permute(0, 1, 3, 2).flatten(0, 1)  # (B * N, before + chunk, D)
        x = self._convolve(functional.pad(windows, (0, 0, 0, after)))  # (B * N, chunk, D)
        return x.reshape(batch, -1, width)[:, :frames]

    def step(self, x: Tensor, state: BlockState, ahead: int = 0) -> Tensor:
        """Convolve the next chunk x (1, T, D) of a stream; its last `ahead` come again."""
        before, after = self.padding
        window = torch.cat([state.frames, x], 1)
        end = window.shape[1] - ahead
        state.frames = window[:, end - before : end].clone()
        return self._convolve(functional.pad(window, (0, 0, 0, after)))

    def _convolve(self, padded: Tensor) -> Tensor:
        x = depthwise_convolution(padded, self.depthwise.weight, self.depthwise.bias)  # type: ignore[arg-type]
        return self.pointwise(functional.silu(x))


class Block(nn.Module):
    """Attention, depthwise convolution and feed-forward, each pre-norm with a residual."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        ffn_width: int,
        kernel_size: int,
        dropout: float,
        drop_path: float,
        causal_convolution: bool,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads, dropout)
        self.convolution_norm = nn.LayerNorm(width)
        self.convolution = ConvolutionModule(width, kernel_size, causal_convolution)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn_in = nn.Linear(width, ffn_width)
        self.ffn_out = nn.Linear(ffn_width, width)
        self.dropout = Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def set_dropout(self, dropout: float, drop_path: float) -> None:
        """Change the probabilities of dropout and of drop-path."""
        self.attention.dropout = dropout
        self.dropout.p = dropout
        self.drop_path.probability = drop_path

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        layout: FrameLayout,
        chunk_frames: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the block's output and its feed-forward output, both (B, T, D)."""
        attended = self.attention(self.attention_norm(x), rotary, attention_mask)
        x = x + self.drop_path(self.dropout(attended))
        full = layout.scatter(self.convolution_norm(x))
        convolved = layout.gather(self.convolution(full, chunk_frames))
        x = x + self.drop_path(self.dropout(convolved))
        hidden = self.dropout(functional.gelu(self.ffn_in(self.ffn_norm(x))))
        ffn_output = self.ffn_out(hidden)
        return x + self.drop_path(self.dropout(ffn_output)), ffn_output

    def start_stream(self) -> BlockState:
        """Return the state of a stream of which nothing was heard yet."""
        weight = self.ffn_in.weight
        width, heads = weight.shape[1], self.attention.num_heads
        nothing = weight.new_zeros(1, heads, 0, width // heads)
        frames = weight.new_zeros(1, self.convolution.padding[0], width)
        return BlockState(keys=nothing, values=nothing, frames=frames)

    def step(self, x: Tensor, state: BlockState, most: int | None, ahead: int = 0) -> Tensor:
        """Return the output of the next chunk x (1, T, D) of a stream; `state` goes on with it.

        Args:
            x: All the frames of the chunk, and those that it looks ahead to.
            state: From `start_stream`, and changed in place.
            most: Frames that later chunks may attend to; None = all.
            ahead: Frames at the end of x that the chunk only looks at: the next one begins with
                them, so `state` does not hold them.
        """
        x = x + self.attention.step(self.attention_norm(x), state, most, ahead)
        x = x + self.convolution.step(self.convolution_norm(x), state, ahead)
        return x + self.ffn_out(functional.gelu(self.ffn_in(self.ffn_norm(x))))
