"""What every encoder is, so that objectives, heads and tools can take any of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from speechjepa.errors import ConfigError


class EncoderOutput(NamedTuple):
    """Output of an encoder; frames are packed when a context mask dropped the hidden ones."""

    features: Tensor
    """(B, T, D) output of the last block."""
    lengths: Tensor
    """(B,) int64, valid frames."""
    layers: list[Tensor] | None = None
    """Input of the first block, then each block's output, (B, T, D) each; None unless asked for."""
    ffn_outputs: list[Tensor] | None = None
    """Each block's feed-forward output before its residual sum, (B, T, D); None unless asked."""
    indices: Tensor | None = None
    """(B, N) int64, where packed frames stand on the full axis; None when nothing is hidden."""


class FrontEnd(NamedTuple):
    """Front-end features, and what a contrastive objective takes from the steps before them."""

    features: Tensor
    """(B, T, D) what the blocks take."""
    lengths: Tensor
    """(B,) int64, valid frames."""
    quantizer_input: Tensor
    """(B, T, F) what a quantizer makes targets of, F = `Encoder.quantizer_width`."""
    convolved: Tensor | None
    """(B, T, F) output of waveform convolutions before any normalisation, whose scale a feature
    penalty holds; None without waveform convolutions."""


class Encoder(nn.Module, ABC):
    """Base of the encoders: waveform to frames, in two steps that objectives can get between.

    Results depend neither on padding nor on what else is in the batch.
    """

    sample_rate: int = 16000
    """Samples per second of the waveform (Hz)."""
    hears_waveform: bool = False
    """Whether the front end is made of waveform convolutions."""
    config: Any
    """Sizes, a frozen dataclass with `width` and `num_layers`."""
    feature_encoder: Any
    """Front end with `hop` and `output_lengths`."""
    blocks: nn.ModuleList
    """Transformer blocks, bottom first."""

    @property
    def width(self) -> int:
        """Channels D of the output."""
        return self.config.width

    @property
    def num_layers(self) -> int:
        """Number of blocks."""
        return self.config.num_layers

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return self.feature_encoder.hop

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the number of frames (B,) of utterances of `lengths` samples (B,)."""
        return self.feature_encoder.output_lengths(lengths)

    @abstractmethod
    def extract_features(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return front-end features (B, T, D) of waveform (B, S), and their lengths (B,)."""

    @property
    def quantizer_width(self) -> int:
        """Channels F of `FrontEnd.quantizer_input`."""
        return self.width

    def front_end(self, waveform: Tensor, lengths: Tensor) -> FrontEnd:
        """Return what `extract_features` returns, with what a contrastive objective needs.

        An encoder on log-mel frames quantizes its features themselves and penalises nothing: the
        input is standardised and a layer norm follows the convolutions, so no scale can run away.
        """
        features, lengths = self.extract_features(waveform, lengths)
        return FrontEnd(features, lengths, features, None)

    @abstractmethod
    def contextualize(
        self,
        features: Tensor,
        lengths: Tensor,
        *,
        context_mask: Tensor | None = None,
        return_layers: bool = False,
        return_ffn: bool = False,
    ) -> EncoderOutput:
        """Run the blocks over front-end features.

        Args:
            features: (B, T, D).
            lengths: (B,) valid frames.
            context_mask: (B, T) True = visible. Hidden frames are dropped, not zeroed; the output
                is packed to (B, N, D), in order of time, N the largest number of visible frames.
            return_layers: Also return the input of the blocks and every block's output.
            return_ffn: Also return every block's feed-forward output.
        """

    def set_dropout(self, dropout: float, drop_path: float) -> None:
        """Change dropout and drop-path; an encoder with published rates keeps them."""

    def forward(
        self, waveform: Tensor, lengths: Tensor, *, return_layers: bool = False
    ) -> EncoderOutput:
        """Encode waveform (B, S) float32 at 16 kHz of `lengths` samples (B,)."""
        features, lengths = self.extract_features(waveform, lengths)
        return self.contextualize(features, lengths, return_layers=return_layers)


def require_at_least(config: object, bounds: Mapping[str, int]) -> None:
    """Raise `ConfigError` where a setting, or one of a tuple's values, is below its bound."""
    for name, bound in bounds.items():
        value = getattr(config, name)
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None and one < bound:
                raise ConfigError(f"`{name}` must be at least {bound}, but is {one} instead")


def require_probabilities(config: object, names: Sequence[str]) -> None:
    """Raise `ConfigError` where a probability of dropping something is not in [0, 1)."""
    for name in names:
        value = getattr(config, name)
        if not 0.0 <= value < 1.0:
            raise ConfigError(f"`{name}` must be at least 0 and below 1, but is {value} instead")
