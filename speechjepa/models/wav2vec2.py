"""wav2vec 2.0 as published, base and large, parameter for parameter, and its relatives.

https://arxiv.org/abs/2006.11477; MMS, HuBERT, data2vec-audio and WavLM are settings of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechjepa.errors import ConfigError
from speechjepa.models.encoder import (
    Encoder,
    EncoderOutput,
    FrontEnd,
    require_at_least,
    require_probabilities,
)
from speechjepa.nn.cpu import Dropout, attention
from speechjepa.nn.packing import pack_visible
from speechjepa.nn.positions import (
    BiasGate,
    PositionalConvolution,
    PositionalConvolutions,
    RelativeBias,
)
from speechjepa.nn.waveform_encoder import WaveformFeatureEncoder, normalize_waveform
from speechjepa.shapes import is_any, padding_mask


@dataclass(frozen=True, kw_only=True)
class Wav2Vec2Config:
    """Sizes of a `Wav2Vec2`; travels inside every bundle. The defaults are those of base."""

    conv_widths: tuple[int, ...] = (512,) * 7
    """Channels of each waveform convolution; the last is F."""
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    """Kernel of each waveform convolution, in steps of its input."""
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    """Stride of each waveform convolution; their product is the hop, 320 samples."""
    conv_norm: Literal["group", "layer"] = "group"
    """"group": the first convolution, each channel over time; "layer": all, over channels."""
    conv_bias: bool = False
    """Whether the waveform convolutions have a bias."""
    width: int = 768
    """Model width D."""
    num_layers: int = 12
    """Blocks."""
    num_heads: int = 12
    """Attention heads H; width / num_heads channels each."""
    ffn_width: int = 3072
    """Hidden channels of the feed-forward part."""
    pre_norm: bool = False
    """Layer norms at the input of each part of a block (large), or after its residual (base)."""
    position_kernel: int = 128
    """Frames of the convolution that tells positions."""
    position_groups: int = 16
    """Groups of channels of that convolution."""
    position_layers: int | None = None
    """This many convolutions tell positions, each followed by a layer norm (data2vec); None = one,
    with weight norm."""
    bias_buckets: int | None = None
    """Buckets of distances in the gated relative bias of attention (WavLM); None = no such bias."""
    bias_distance: int = 800
    """Frames from which on that bias does not tell distances apart."""
    feature_norm: bool = True
    """Whether waveform features are layer-normed before their projection."""
    adapter_width: int | None = None
    """Channels of the adapter at the end of each block (MMS); None = no adapters."""
    layer_norm_eps: float = 1e-5
    """Added to variances of layer norms."""
    normalize_waveform: bool = True
    """Bring every utterance to mean 0, variance 1 over its samples."""
    dropout: float = 0.1
    """Probability; on residual branches and the input of the first block."""
    attention_dropout: float = 0.1
    """Probability; on attention weights."""
    activation_dropout: float = 0.0
    """Probability; inside the feed-forward part."""
    input_dropout: float = 0.1
    """Probability; on the projected features."""
    layerdrop: float = 0.05
    """Probability that a block is skipped in training. Skipped blocks get no gradient in that step,
    which data-parallel training must allow (`find_unused_parameters`)."""
    feature_grad_mult: float = 0.1
    """Factor on the gradient into the waveform convolutions."""

    def __post_init__(self) -> None:
        if not len(self.conv_widths) == len(self.conv_kernels) == len(self.conv_strides) > 0:
            raise ConfigError(
                "`conv_widths`, `conv_kernels` and `conv_strides` must have one value per "
                f"convolution, but have {len(self.conv_widths)}, {len(self.conv_kernels)} and "
                f"{len(self.conv_strides)} instead"
            )
        sizes = ["width", "num_layers", "num_heads", "ffn_width"]
        sizes += ["position_kernel", "position_groups"]
        sizes += ["conv_widths", "conv_kernels", "conv_strides"]
        sizes += ["position_layers", "adapter_width"]
        require_at_least(self, dict.fromkeys(sizes, 1))
        dropped = ("dropout", "attention_dropout", "activation_dropout", "input_dropout")
        require_probabilities(self, (*dropped, "layerdrop"))
        if self.bias_buckets is not None and not 4 <= self.bias_buckets < 4 * self.bias_distance:
            raise ConfigError(
                "`bias_buckets` must be at least 4 and less than four times `bias_distance` "
                f"({self.bias_distance}), but is {self.bias_buckets} instead"
            )
        if self.adapter_width is not None and not self.pre_norm:
            raise ConfigError("`adapter_width` takes `pre_norm`: only such models have adapters")
        for name in ("num_heads", "position_groups"):
            if self.width % getattr(self, name):
                raise ConfigError(
                    f"`width` must be divisible by `{name}` ({getattr(self, name)}), "
                    f"but is {self.width} instead"
                )


PRESETS: dict[str, Wav2Vec2Config] = {
    "tiny": Wav2Vec2Config(
        conv_widths=(128,) * 7, width=192, num_layers=6, num_heads=3, ffn_width=768
    ),
    "base": Wav2Vec2Config(),
    "large": Wav2Vec2Config(
        conv_norm="layer",
        conv_bias=True,
        width=1024,
        num_layers=24,
        num_heads=16,
        ffn_width=4096,
        pre_norm=True,
        dropout=0.0,
        attention_dropout=0.0,
        input_dropout=0.0,
        layerdrop=0.0,
        feature_grad_mult=1.0,
    ),
}


def preset_config(name: str, **changes: object) -> Wav2Vec2Config:
    """Return a preset's sizes with some of them changed."""
    return replace(PRESETS[name], **changes)  # type: ignore[arg-type]


class Wav2Vec2(Encoder):
    """Waveform convolutions, a positional convolution, transformer blocks.

    Differs from the published code: results never depend on padding (the published base model takes
    its group norm over padding too), and hidden frames can be dropped. Equal without padding.

    Args:
        config: Sizes.
    """

    hears_waveform = True

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.config = config
        self.feature_encoder = WaveformFeatureEncoder(
            config.conv_widths,
            config.conv_kernels,
            config.conv_strides,
            norm=config.conv_norm,
            bias=config.conv_bias,
            layer_norm_eps=config.layer_norm_eps,
        )
        self.feature_norm: nn.Module = nn.Identity()
        if config.feature_norm:
            self.feature_norm = nn.LayerNorm(config.conv_widths[-1], eps=config.layer_norm_eps)
        self.feature_projection = nn.Linear(config.conv_widths[-1], config.width)
        self.input_dropout = Dropout(config.input_dropout)
        self.mask_embedding = nn.Parameter(torch.rand(config.width))
        sizes = (config.width, config.position_kernel, config.position_groups)
        if config.position_layers is None:
            self.positions: nn.Module = PositionalConvolution(*sizes)
        else:
            self.positions = PositionalConvolutions(*sizes, config.position_layers)
        self.relative_bias: RelativeBias | None = None
        if config.bias_buckets is not None:
            buckets, distance = config.bias_buckets, config.bias_distance
            self.relative_bias = RelativeBias(config.num_heads, buckets, distance)
        self.norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))

    @property
    def quantizer_width(self) -> int:
        """Channels F of the waveform features, which the quantizer takes."""
        return self.config.conv_widths[-1]

    def convolve(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the waveform features (B, T, F), not yet normalised, and their lengths (B,)."""
        if self.config.normalize_waveform:
            waveform = normalize_waveform(waveform, lengths)
        features, lengths = self.feature_encoder(waveform, lengths)
        if self.config.feature_grad_mult != 1.0 and features.requires_grad:
            # The bracket is exactly 0: the value stays, the gradient is scaled.
            still = features.detach()
            features = still + (features - still) * self.config.feature_grad_mult
        return features, lengths

    def front_end(self, waveform: Tensor, lengths: Tensor) -> FrontEnd:
        """Return features; a quantizer takes the layer-normed waveform features before projection.

        Differs from the published code: no dropout between them and the quantizer.
        """
        convolved, lengths = self.convolve(waveform, lengths)
        normalized = self.feature_norm(convolved)
        features = self.input_dropout(self.feature_projection(normalized))
        return FrontEnd(features, lengths, normalized, convolved)

    def extract_features(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return front-end features (B, T, D) of waveform (B, S), and their lengths (B,)."""
        found = self.front_end(waveform, lengths)
        return found.features, found.lengths

    def contextualize(
        self,
        features: Tensor,
        lengths: Tensor,
        *,
        context_mask: Tensor | None = None,
        return_layers: bool = False,
        return_ffn: bool = False,
    ) -> EncoderOutput:
        """Run positional convolution and blocks, as `Encoder.contextualize` says.

        Hidden frames count as zeros in the positional convolution and are dropped before the
        blocks. The feed-forward output of a block that layerdrop skipped is zeros.
        """
        visible = ~padding_mask(lengths, features.shape[1])
        if context_mask is not None:
            visible = visible & context_mask
        x = features.masked_fill(~visible[:, :, None], 0.0)
        x = x + self.positions(x, visible)
        indices = None
        if context_mask is not None:
            x, lengths, indices = pack_visible(x, visible)
        if not self.config.pre_norm:
            x = self.norm(x)
        x = self.dropout(x)
        mask = _attention_mask(lengths, x.shape[1])
        bias = None
        if self.relative_bias is not None:
            places = torch.arange(x.shape[1], device=x.device)[None] if indices is None else indices
            bias = self.relative_bias(places)  # (B, H, T, T), or (1, H, T, T) when all are there
        layers, ffn_outputs = [x], []
        for block in self.blocks:
            if self.training and torch.rand(()).item() < self.config.layerdrop:
                ffn_output = torch.zeros_like(x)
            else:
                x, ffn_output = block(x, mask, bias)
            layers.append(x)
            ffn_outputs.append(ffn_output)
        return EncoderOutput(
            self.norm(x) if self.config.pre_norm else x,
            lengths,
            layers if return_layers else None,
            ffn_outputs if return_ffn else None,
            indices,
        )


class Adapter(nn.Module):
    """A narrow feed-forward part that is trained for one language (MMS).

    https://arxiv.org/abs/2305.13516
    """

    def __init__(self, width: int, adapter_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down = _linear(width, adapter_width)
        self.up = _linear(adapter_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to frames x (B, T, D)."""
        return self.up(functional.relu(self.down(self.norm(x))))


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        width = config.width
        self.num_heads = config.num_heads
        self.dropout = config.attention_dropout
        self.query = _linear(width, width)
        self.key = _linear(width, width)
        self.value = _linear(width, width)
        self.output = _linear(width, width)
        self.gate: BiasGate | None = None
        if config.bias_buckets is not None:
            self.gate = BiasGate(width // self.num_heads, self.num_heads)

    def forward(self, x: Tensor, mask: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """Let frames x (B, T, D) attend to the frames where mask (B, 1, 1, T) is True.

        A relative bias (B or 1, H, T, T) is gated and added to the scores.
        """
        if self.gate is not None and bias is not None:
            bias = self.gate(x) * bias
        query, key, value = (
            project(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )  # (B, H, T, D / H)
        x = attention(query, key, value, mask, self.dropout if self.training else 0.0, bias)
        return self.output(x.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and feed-forward, each with a residual and a layer norm before or after."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.ffn_in = _linear(config.width, config.ffn_width)
        self.ffn_out = _linear(config.ffn_width, config.width)
        self.ffn_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.dropout)
        self.activation_dropout = Dropout(config.activation_dropout)
        self.adapter: Adapter | None = None
        if config.adapter_width is not None and config.pre_norm:
            self.adapter = Adapter(config.width, config.adapter_width)

    def forward(
        self, x: Tensor, mask: Tensor | None, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the block's output and its feed-forward output, both (B, T, D)."""
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.attention_norm(x), mask, bias))
            ffn_output = self._feed_forward(self.ffn_norm(x))
            x = x + self.dropout(ffn_output)
            return x if self.adapter is None else x + self.adapter(x), ffn_output
        x = self.attention_norm(x + self.dropout(self.attention(x, mask, bias)))
        ffn_output = self._feed_forward(x)
        return self.ffn_norm(x + self.dropout(ffn_output)), ffn_output

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.ffn_out(self.activation_dropout(functional.gelu(self.ffn_in(x))))


def _linear(source: int, width: int) -> nn.Linear:
    linear = nn.Linear(source, width)
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return linear


def _attention_mask(lengths: Tensor, num_frames: int) -> Tensor | None:
    """Return (B, 1, 1, T), True = may be attended to; None when there is no padding."""
    padding = padding_mask(lengths, num_frames)
    if not is_any(padding):
        return None
    # An utterance without frames attends to its padding, so that the softmax stays finite.
    return (~padding | (lengths == 0)[:, None])[:, None, None, :]
