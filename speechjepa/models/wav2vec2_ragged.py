"""The network of a fine-tuned `Wav2Vec2` for inference on CPUs: the same function in less time.

- Utterances are not padded: frames of all of them lie one after the other, (N, D), wherever an
  operation knows no neighbours; attention and positions take one utterance at a time.
- Convolutions are matrix products over frames that lie in order (T, F), in pieces of a second that
  stay in the cache; a kernel of three with stride two is one product over pairs of frames and one
  over the frames after them, so nothing is copied.
- The group norm of the first convolution needs the mean and variance of its output, which follow
  from those of the ten samples that it sees: they are folded into its weights, per utterance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechjepa.models.ctc import CtcModel
from speechjepa.models.wav2vec2 import Attention, Block, Wav2Vec2
from speechjepa.nn.positions import PositionalConvolution
from speechjepa.nn.waveform_encoder import ChannelNorm

ComputeType = Literal["float32", "bfloat16", "int8"]
Linear = Callable[[Tensor], Tensor]

_PIECE_FRAMES = 64  # output frames of the convolutions that are computed at a time


class RaggedWav2Vec2:
    """Logits of several utterances at once, none padded.

    Args:
        ctc: A model whose encoder is a `Wav2Vec2`, in eval mode on a CPU.
        compute_type: Number format of the matrix products. int8 weights and inputs are for the
            blocks; the convolutions stay float32.

    Raises:
        ValueError: The encoder is another one, or one that this does not know.
    """

    def __init__(self, ctc: CtcModel, compute_type: ComputeType) -> None:
        if not can_be_ragged(ctc):
            raise ValueError("`ctc` must have a `Wav2Vec2` encoder without relative biases")
        encoder = ctc.encoder
        assert isinstance(encoder, Wav2Vec2)
        self._ctc = ctc
        self._encoder = encoder
        self._dtype = torch.bfloat16 if compute_type == "bfloat16" else torch.float32
        stack = encoder.feature_encoder
        self._convolutions = [
            _taps(convolution, self._dtype if i else torch.float32)
            for i, convolution in enumerate(stack.convolutions)
        ]
        self._projection = make_linear(encoder.feature_projection, compute_type)
        self._blocks = [_RaggedBlock(block, compute_type) for block in encoder.blocks]  # type: ignore[arg-type]
        self._positions = _RaggedPositions(encoder.positions)

    def __call__(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Return logits (T, V) float32 of each waveform (S,)."""
        encoder = self._encoder
        convolved = [self._convolve(waveform.float()) for waveform in waveforms]
        sizes = [len(x) for x in convolved]
        x = torch.cat(convolved)  # (N, F)
        # What is added up is float32: sums over blocks in bfloat16 would lose half of its digits.
        x = self._projection(_norm(x.float(), encoder.feature_norm)).float()  # (N, D)
        x = x + torch.cat([self._positions(part) for part in x.split(sizes)])
        if not encoder.config.pre_norm:
            x = _norm(x, encoder.norm)
        for block in self._blocks:
            x = block(x, sizes)
        if encoder.config.pre_norm:
            x = _norm(x, encoder.norm)
        return list(
            self._ctc.head_logits(x[None])[0].split([n * self._ctc.upsample for n in sizes])
        )

    def _convolve(self, waveform: Tensor) -> Tensor:
        """Return the features (T, F) of a waveform (S,)."""
        encoder = self._encoder
        stack = encoder.feature_encoder
        num_frames = int(encoder.output_lengths(torch.tensor([len(waveform)]))[0])
        if encoder.config.normalize_waveform:
            centred = waveform - waveform.mean()
            waveform = centred * torch.rsqrt(centred.square().mean() + 1e-7)
        first = self._first_layer(waveform)
        field, hop = stack.receptive_field, stack.hop
        pieces = []
        for start in range(0, num_frames, _PIECE_FRAMES):
            count = min(_PIECE_FRAMES, num_frames - start)
            samples = waveform[start * hop : (start + count - 1) * hop + field]
            pieces.append(self._convolve_piece(samples, first))
        if not pieces:
            return torch.zeros(0, stack.convolutions[-1].out_channels, dtype=self._dtype)
        return torch.cat(pieces)

    def _convolve_piece(self, samples: Tensor, first: tuple[Tensor, Tensor]) -> Tensor:
        stack = self._encoder.feature_encoder
        weight, bias = first
        x = samples.unfold(0, stack.kernels[0], stack.strides[0])  # (T, 10)
        x = torch.addmm(bias, x, weight)
        if len(stack.norms) > 1:
            x = _norm(x, stack.norms[0])
        x = functional.gelu(x).to(self._dtype)  # (T, F)
        for i in range(1, len(stack.kernels)):
            x = _convolve(x, *self._convolutions[i], stack.kernels[i], stack.strides[i])
            if len(stack.norms) > 1:
                x = _norm(x, stack.norms[i])
            x = functional.gelu(x)
        return x

    def _first_layer(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight (K, F) and bias (F,) of the first convolution, a group norm folded in.

        Its outputs w.u + b over all places u of the waveform have the mean w.E[u] + b and the
        variance w.Cov[u].w.
        """
        stack = self._encoder.feature_encoder
        (weight,), bias = self._convolutions[0]
        bias = weight.new_zeros(weight.shape[1]) if bias is None else bias
        norm = stack.norms[0]
        if not isinstance(norm, ChannelNorm) or len(waveform) < stack.kernels[0]:
            return weight, bias
        places = waveform.unfold(0, stack.kernels[0], stack.strides[0]).double()  # (T, K)
        mean = places.mean(dim=0)
        centred = places - mean
        covariance = centred.T @ centred / len(places)
        wide = weight.double()
        variance = (wide * (covariance @ wide)).sum(dim=0).clamp_min(0.0)
        scale = torch.rsqrt(variance + norm.eps) * norm.weight.double()
        return (wide * scale).float(), (norm.bias.double() - mean @ wide * scale).float()


def can_be_ragged(ctc: nn.Module) -> bool:
    """Say whether there is a `RaggedWav2Vec2` of this model."""
    encoder = getattr(ctc, "encoder", None)
    return (
        isinstance(encoder, Wav2Vec2)
        and encoder.relative_bias is None
        and isinstance(encoder.positions, PositionalConvolution)
        and all(
            (k, s) in ((2, 2), (3, 2))
            for k, s in zip(
                encoder.config.conv_kernels[1:], encoder.config.conv_strides[1:], strict=True
            )
        )
    )


def make_linear(linear: nn.Linear, compute_type: ComputeType) -> Linear:
    """Return a linear layer whose product is taken in this number format."""
    if compute_type == "int8":
        quantized = torch.ao.nn.quantized.dynamic.Linear
        linear.qconfig = torch.ao.quantization.default_dynamic_qconfig  # type: ignore[assignment]
        made: nn.Module = quantized.from_float(linear)
        del linear.qconfig
        return made
    dtype = torch.bfloat16 if compute_type == "bfloat16" else torch.float32
    weight, bias = linear.weight.detach().to(dtype), linear.bias.detach().to(dtype)
    return lambda x: functional.linear(x.to(dtype), weight, bias)


class _RaggedBlock:
    """A `Block` over frames (N, D) of several utterances."""

    def __init__(self, block: Block, compute_type: ComputeType) -> None:
        self._block = block
        self._num_heads = block.attention.num_heads
        self._query_key_value = make_linear(_joined(block.attention), compute_type)
        self._output = make_linear(block.attention.output, compute_type)
        self._ffn_in = make_linear(block.ffn_in, compute_type)
        self._ffn_out = make_linear(block.ffn_out, compute_type)

    def __call__(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        block = self._block
        if block.pre_norm:
            x = x + self._attend(_norm(x, block.attention_norm), sizes)
            x = x + self._feed_forward(_norm(x, block.ffn_norm))
            if block.adapter is not None:
                narrow = functional.relu(block.adapter.down(block.adapter.norm(x.float())))
                x = x + block.adapter.up(narrow).to(x.dtype)
            return x
        x = _norm(x + self._attend(x, sizes), block.attention_norm)
        return _norm(x + self._feed_forward(x), block.ffn_norm)

    def _attend(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        heads = self._query_key_value(x).unflatten(1, (3, self._num_heads, -1))  # (N, 3, H, D / H)
        attended = []
        for part in heads.split(list(sizes)):
            query, key, value = part.permute(1, 2, 0, 3)[:, None]  # (1, H, T, D / H) each
            found = functional.scaled_dot_product_attention(query, key, value)
            attended.append(found[0].transpose(0, 1).flatten(1))
        return self._output(torch.cat(attended))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self._ffn_out(functional.gelu(self._ffn_in(x)))


class _RaggedPositions:
    """A `PositionalConvolution` of one utterance, its weight norm folded in.

    In float32 always: in bfloat16 it takes as long, and with 8 channels a group it is wrong on CPUs
    with AMX (torch 2.11).
    """

    def __init__(self, positions: nn.Module) -> None:
        assert isinstance(positions, PositionalConvolution)
        convolution = positions.convolution
        self._weight = convolution.weight.detach().clone()
        self._bias = convolution.bias.detach()  # type: ignore[union-attr]
        self._groups, self._kernel = convolution.groups, convolution.kernel_size[0]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the embedding (T, D) of frames (T, D)."""
        if not len(x):
            return x
        y = functional.conv1d(
            x.T[None], self._weight, self._bias, padding=self._kernel // 2, groups=self._groups
        )
        return functional.gelu(y[0, :, : len(x)]).T


def _joined(attention: Attention) -> nn.Linear:
    """Return query, key and value as one linear layer."""
    parts = (attention.query, attention.key, attention.value)
    joined = nn.Linear(attention.query.in_features, 3 * attention.query.out_features)
    with torch.no_grad():
        joined.weight.copy_(torch.cat([part.weight for part in parts]))
        joined.bias.copy_(torch.cat([part.bias for part in parts]))
    return joined


def _taps(convolution: nn.Conv1d, dtype: torch.dtype) -> tuple[list[Tensor], Tensor | None]:
    """Return the kernel as matrices (inputs, F) to multiply with, and the bias (F,)."""
    weight = convolution.weight.detach().permute(2, 1, 0)  # (K, inputs, F)
    stride = convolution.stride[0]
    taps = [part.flatten(0, 1).to(dtype).contiguous() for part in weight.split(stride)]
    if convolution.in_channels == 1:
        taps = [weight.flatten(0, 1).to(dtype).contiguous()]
    bias = None if convolution.bias is None else convolution.bias.detach().to(dtype)
    return taps, bias


def _convolve(
    x: Tensor, taps: Sequence[Tensor], bias: Tensor | None, kernel: int, stride: int
) -> Tensor:
    """Return the convolution (T', F) of frames x (T, inputs), the kernel as `_taps` gives it."""
    count, width = (len(x) - kernel) // stride + 1, x.shape[1]
    pairs = x[: count * stride].view(count, stride * width)
    y = pairs @ taps[0] if bias is None else torch.addmm(bias, pairs, taps[0])
    if len(taps) > 1:  # the frame after each pair
        y.addmm_(x[stride : stride * count + 1 : stride], taps[1])
    return y


def _norm(x: Tensor, norm: nn.Module) -> Tensor:
    """Return the layer norm of x, computed in its own number format with float32 sums."""
    if not isinstance(norm, nn.LayerNorm):
        return norm(x)
    weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
    return functional.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)
