"""Three operations that are slow on CPUs as they come, done with the same result in less time.

The backward pass of `scaled_dot_product_attention` and the weight gradient of a depthwise
convolution, written as matrix products, took 45 % of a pretraining step (`tools/profile_step.py`).
Dropout took 25 % of a fine-tuning step on one core and more on two: it draws one number at a
time, on one thread.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

# Above this many frames the (T, T) products cost more than the stock kernels.
MAX_FRAMES = 512


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    bias: Tensor | None = None,
) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + bias + mask) v for (B, H, T, d) inputs.

    The mask is True where a frame may be attended to; the bias broadcasts to (B, H, T, T).

    Training on short sequences on a CPU multiplies the matrices out; everything else goes through
    `scaled_dot_product_attention`, whose gradient on a CPU is about five times slower there.
    """
    short = query.shape[2] <= MAX_FRAMES and query.device.type == "cpu"
    if not (short and torch.is_grad_enabled() and query.requires_grad):
        if bias is not None:
            bias = bias.to(query.dtype)
            mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout
        )
    scores = torch.matmul(query * query.shape[3] ** -0.5, key.transpose(-1, -2))  # (B, H, T, T)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores + torch.zeros(mask.shape, dtype=scores.dtype).masked_fill(~mask, -1e4)
    weights = torch.softmax(scores, dim=-1).to(value.dtype)
    if dropout:
        weights = random_bytes_dropout(weights, dropout)
    return torch.matmul(weights, value)


class _DepthwiseConvolution(torch.autograd.Function):
    """y[b, t, d] = bias[d] + sum_k x[b, t + k, d] w[d, k], with a fast weight gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        kernel_size, frames = weight.shape[3], gradient.shape[1]
        exact = torch.promote_types(gradient.dtype, torch.float32)  # bfloat16 sums lose frames
        padded = functional.pad(gradient, (0, 0, kernel_size - 1, kernel_size - 1))
        for_x = _convolve(padded, weight.flip(3), None)
        # One product per channel holds every pair of input and output frame; taps are diagonals.
        pairs = torch.bmm(x.permute(2, 1, 0), gradient.permute(2, 0, 1))  # (D, T + K - 1, T)
        strides = (pairs.stride(0), frames, frames + 1)
        taps = pairs.as_strided((len(weight), kernel_size, frames), strides)  # (D, K, T)
        for_weight = taps.sum(dim=2, dtype=torch.float32)[:, None, None, :].to(weight.dtype)
        return for_x, for_weight, gradient.sum(dim=(0, 1), dtype=exact).to(weight.dtype)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # (B, T, D) seen as a channels-last image (B, D, 1, T): no copy, and the depthwise kernel for
    # that layout is about 20 times faster than Conv1d's.
    image = x.transpose(1, 2).unsqueeze(2)
    y = functional.conv2d(image, weight, bias, groups=weight.shape[0])
    return y.squeeze(2).transpose(1, 2)


def depthwise_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the valid depthwise convolution over time of x (B, T + K - 1, D): (B, T, D).

    Args:
        x: Padded frames.
        weight: (D, 1, 1, K).
        bias: (D,).
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    trains = torch.is_grad_enabled() and weight.requires_grad
    if trains and x.device.type == "cpu" and x.shape[1] <= MAX_FRAMES:
        return cast(Tensor, _DepthwiseConvolution.apply(x.contiguous(), weight, bias))
    return _convolve(x, weight, bias)


def random_bytes_dropout(x: Tensor, probability: float) -> Tensor:
    """Return x with about a share `probability` of its elements zero, the rest scaled to match.

    One random byte decides on each element, so the share is rounded to 1/256; what is kept is
    scaled by the rounded share, so that the expected value is exactly x.
    """
    below = min(255, round(256 * probability))
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), 2**63 - 1)
    keep = words.view(torch.uint8)[: x.numel()].view(x.shape).ge_(below)
    return x * keep.to(x.dtype).mul_(256 / (256 - below))


class Dropout(nn.Dropout):
    """Dropout that costs little on a CPU (see `random_bytes_dropout`), PyTorch's elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.p and x.device.type == "cpu":
            return random_bytes_dropout(x, self.p)
        return super().forward(x)
