"""Encoders with what pretraining adds to them: predictors, projections, quantizer, mask token.

None of these know a loss; `speechjepa.training.pretrain` brings models and losses together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechjepa.audio.features import LogMel
from speechjepa.errors import ConfigError
from speechjepa.models.encoder import Encoder, EncoderOutput, FrontEnd
from speechjepa.nn.cpu import depthwise_convolution
from speechjepa.nn.packing import FrameLayout, pack_visible
from speechjepa.nn.quantizer import GumbelQuantizer, QuantizerOutput
from speechjepa.shapes import padding_mask


class ConvolutionalPredictor(nn.Module):
    """Predict what is hidden from visible frames on the full time axis.

    Convolutions are conditioned on position by construction: every hidden frame holds the same
    learned token, and its distance to the visible frames is all that tells it where it is.
    After data2vec 2.0's decoder (https://arxiv.org/abs/2212.07525); differs from it in using
    depthwise-separable convolutions, which a CPU runs several times faster than grouped ones.

    Args:
        width: Channels D of the context encoder.
        hidden_width: Channels inside.
        output_width: Channels of the predictions.
        num_layers: Convolution layers.
        kernel_size: Odd; frames.
    """

    def __init__(
        self,
        width: int,
        hidden_width: int,
        output_width: int,
        num_layers: int = 4,
        kernel_size: int = 7,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.input = nn.Linear(width, hidden_width)
        self.mask_token = nn.Parameter(torch.randn(hidden_width) * 0.02)
        self.depthwise = nn.ModuleList(
            nn.Conv2d(hidden_width, hidden_width, (1, kernel_size), groups=hidden_width)
            for _ in range(num_layers)
        )
        self.pointwise = nn.ModuleList(
            nn.Linear(hidden_width, hidden_width) for _ in range(num_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_width) for _ in range(num_layers))
        self.output = nn.Linear(hidden_width, output_width)

    def forward(self, context: Tensor, layout: FrameLayout, lengths: Tensor) -> Tensor:
        """Predict every frame of the full axis.

        Args:
            context: (B, N, D) packed output of the context encoder.
            layout: Where these frames stand on the full axis.
            lengths: (B,) valid frames of the full axis.

        Returns:
            (B, T, output_width); only hidden frames are meant to be used.
        """
        x = layout.scatter(self.input(context), self.mask_token)
        frames = x.shape[1]
        padding = padding_mask(lengths, frames)[:, :, None]
        for depthwise, pointwise, norm in zip(
            self.depthwise, self.pointwise, self.norms, strict=True
        ):
            margin = self.kernel_size // 2
            x = functional.pad(x.masked_fill(padding, 0.0), (0, 0, margin, margin))
            y = depthwise_convolution(
                x, cast(Tensor, depthwise.weight), cast(Tensor, depthwise.bias)
            )
            x = x[:, margin : margin + frames] + functional.gelu(norm(pointwise(y)))
        return self.output(x)


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """Sizes of what stands beside a JEPA's encoder, and what its targets are."""

    output_width: int
    """Channels of the predictions."""
    predictor_width: int
    """Channels inside the predictor."""
    predictor_layers: int
    """Convolution layers of the predictor."""
    projection_width: int | None
    """Channels of the projected targets; None = the targets are feed-forward outputs."""
    average_top_k_layers: int
    """Blocks whose feed-forward outputs are averaged into targets, when nothing is projected."""
    mask_length_seconds: float
    """Length of the spans it learned to predict (seconds)."""

    def __post_init__(self) -> None:
        sizes = (self.output_width, self.predictor_width, self.predictor_layers)
        if min(*sizes, self.average_top_k_layers) < 1 or self.mask_length_seconds <= 0:
            raise ConfigError("every size of `predictor` must be more than 0")


def build_predictor(encoder: Encoder, config: PredictorConfig) -> ContextPredictionModel:
    """Return a context-prediction model of these sizes around an encoder, with fresh weights."""
    return ContextPredictionModel(
        encoder,
        config.output_width,
        predictor_width=config.predictor_width,
        predictor_layers=config.predictor_layers,
        projection_width=config.projection_width,
    )


class ContextPredictionModel(nn.Module):
    """Context encoder and predictor: a JEPA, or masked reconstruction, by what it is asked for.

    Args:
        encoder: The context encoder.
        output_width: Channels of the predictions.
        predictor_width: Channels inside the predictor.
        predictor_layers: Its layers.
        projection_width: If given, a linear projection of the encoder's output to this many
            channels, which are the targets of a JEPA without a teacher.
    """

    encoder: Encoder

    def __init__(
        self,
        encoder: Encoder,
        output_width: int,
        *,
        predictor_width: int = 192,
        predictor_layers: int = 4,
        projection_width: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.width
        self.predictor = ConvolutionalPredictor(
            width, predictor_width, output_width, predictor_layers
        )
        self.projection = None if projection_width is None else nn.Linear(width, projection_width)

    def predict(
        self, features: Tensor, lengths: Tensor, hidden: Tensor
    ) -> tuple[Tensor, EncoderOutput]:
        """Encode the visible frames alone and predict the hidden ones.

        Args:
            features: (B, T, D) front-end features.
            lengths: (B,) valid frames.
            hidden: (B, T) span mask, True = hidden.

        Returns:
            Predictions (B, T, output_width) and the packed context (B, N, D).
        """
        context: EncoderOutput = self.encoder.contextualize(features, lengths, context_mask=~hidden)
        seen = ~padding_mask(context.lengths, context.features.shape[1])
        layout = FrameLayout(seen, context.indices, features.shape[1])
        return self.predictor(context.features, layout, lengths), context


class ContrastiveModel(nn.Module):
    """wav2vec 2.0's pretraining head on any encoder: mask embedding, quantizer, projections.

    The mask embedding is the encoder's own where it has one, as the published architecture does.

    Args:
        encoder: Encodes the masked features.
        quantizer: Turns what the encoder's front end says of hidden frames into targets.
        output_width: Channels in which predictions and targets are compared.
    """

    encoder: Encoder

    def __init__(self, encoder: Encoder, quantizer: GumbelQuantizer, output_width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.quantizer = quantizer
        width = encoder.width
        own = getattr(encoder, "mask_embedding", None)
        self.mask_embedding = nn.Parameter(torch.rand(width)) if own is None else own
        self.project_prediction = nn.Linear(width, output_width)
        self.project_target = nn.Linear(quantizer.output_width, output_width)

    def forward(
        self, found: FrontEnd, span_mask: Tensor, temperature: float, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, QuantizerOutput, EncoderOutput]:
        """Predict the codes of hidden frames.

        Args:
            found: What the encoder's front end gave.
            span_mask: (B, T) True = hidden.
            temperature: Of the Gumbel softmax.
            noise: (B, M, G, V) Gumbel noise for the hidden frames, packed; None = drawn.

        Returns:
            Predictions (B, M, P) and targets (B, M, P) of the masked frames, packed; their
            numbers (B,); the quantizer's output; the encoder's output over all frames.
        """
        embedding = self.mask_embedding.to(found.features.dtype)
        masked = torch.where(span_mask[:, :, None], embedding, found.features)
        output: EncoderOutput = self.encoder.contextualize(masked, found.lengths)
        predictions, num_masked, _ = pack_visible(output.features, span_mask)
        unmasked, _, _ = pack_visible(found.quantizer_input, span_mask)
        quantized = self.quantizer(unmasked, num_masked, temperature=temperature, noise=noise)
        return (
            self.project_prediction(predictions),
            self.project_target(quantized.vectors),
            num_masked,
            quantized,
            output,
        )


class LogMelTargets(nn.Module):
    """Log-mel frames grouped by encoder frame: what masked reconstruction predicts.

    Args:
        hop: Samples per encoder frame, a multiple of 160.
        num_mels: Mel channels F.
    """

    def __init__(self, hop: int, num_mels: int = 80) -> None:
        super().__init__()
        self.log_mel = LogMel(num_mels)
        self.per_frame = hop // self.log_mel.hop
        self.width = self.per_frame * num_mels

    def forward(self, waveform: Tensor, lengths: Tensor, num_frames: int) -> Tensor:
        """Return (B, T, R * F) for waveform (B, S) and T encoder frames."""
        mel, _ = self.log_mel(waveform, lengths)
        missing = num_frames * self.per_frame - mel.shape[1]
        mel = functional.pad(mel, (0, 0, 0, max(0, missing)))[:, : num_frames * self.per_frame]
        return mel.reshape(mel.shape[0], num_frames, self.width)
