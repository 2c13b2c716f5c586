"""The native encoder: log-mel front end and pre-norm blocks at 50 or 25 Hz."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from speechjepa.audio.features import Normalization
from speechjepa.errors import ConfigError
from speechjepa.models.encoder import (
    Encoder,
    EncoderOutput,
    require_at_least,
    require_probabilities,
)
from speechjepa.nn.feature_encoder import LogMelFeatureEncoder
from speechjepa.nn.packing import FrameLayout, pack_visible
from speechjepa.nn.transformer import Block, Chunks, chunk_causal_mask, rotary_angles
from speechjepa.shapes import padding_mask


@dataclass(frozen=True, kw_only=True)
class StreamingConfig:
    """Chunks that an encoder is trained with, so that it can be used chunk by chunk."""

    min_chunk_seconds: float = 0.16
    """Shortest chunk (seconds)."""
    max_chunk_seconds: float = 1.28
    """Longest chunk (seconds)."""
    left_seconds: float = 5.12
    """What a frame may attend to before its own chunk (seconds): bounds memory and time."""
    full_prob: float = 0.3
    """Share of the batches that see whole utterances, so that one model serves files too."""

    def __post_init__(self) -> None:
        if not 0.04 <= self.min_chunk_seconds <= self.max_chunk_seconds <= 30:
            raise ConfigError(
                "`min_chunk_seconds` must be at least 0.04 and at most `max_chunk_seconds`, which "
                f"must be at most 30, but they are {self.min_chunk_seconds} and "
                f"{self.max_chunk_seconds} instead"
            )
        if not 0 < self.left_seconds <= 60:
            raise ConfigError(
                "`left_seconds` must be more than 0 and at most 60, "
                f"but is {self.left_seconds} instead"
            )
        require_probabilities(self, ("full_prob",))

    def chunks(self, seconds: float, frame_rate: float) -> Chunks:
        """Return the chunks of about so many seconds, at so many frames per second.

        Raises:
            ConfigError: It was not trained with such chunks.
        """
        low, high = self.min_chunk_seconds, self.max_chunk_seconds
        if not low <= seconds <= high:
            raise ConfigError(
                f"`chunk_seconds` must be between {low} and {high}, which this model was trained "
                f"with, but is {seconds} instead"
            )
        frames = max(1, round(seconds * frame_rate))
        return Chunks(frames, max(1, round(self.left_seconds * frame_rate / frames)))


@dataclass(frozen=True, kw_only=True)
class SpeechEncoderConfig:
    """Sizes of a `SpeechEncoder`; travels inside every bundle."""

    width: int = 192
    """Model width D."""
    num_layers: int = 8
    """Blocks."""
    num_heads: int = 3
    """Attention heads; width / num_heads channels each."""
    ffn_width: int = 768
    """Hidden channels of the feed-forward part."""
    kernel_size: int = 15
    """Frames of the depthwise convolution, odd."""
    frame_rate: Literal[25, 50] = 50
    """Frames per second."""
    num_mels: int = 80
    """Mel channels F."""
    normalization: Normalization = "utterance"
    """Of the log-mel channels: per utterance, or global constants. A stream of an encoder that
    learned to stream is normalised by what was heard so far, in place of the utterance."""
    normalization_prior_seconds: float = 0.0
    """Of per-utterance normalisation: how much the statistics of the training data weigh beside
    the utterance's own (seconds of audio). Single words are told apart better with 1. 0 = none,
    or as much as in the encoder that training starts from."""
    pitch: bool = False
    """Whether the front end also hears the pitch of the voice (see `PitchInput`), which tones are
    written by. Fine-tuning gives it to an encoder that learnt without (`finetune.pitch`); asked for
    here, an encoder that stays frozen gets it too, and it adds nothing. Hidden frames count in the
    mean pitch of three seconds, as they do in the statistics of an utterance."""
    dropout: float = 0.0
    """Probability; in the feature projection, attention weights and residual branches."""
    drop_path: float = 0.0
    """Probability that the last block's branches are skipped; grows linearly from 0."""
    chunk_frames: int | None = None
    """Frames per chunk: attention and convolutions see the past, and the future inside their own
    chunk only. None = everything. Fine-tuning with `streaming` makes an encoder that does both."""
    left_chunks: int | None = None
    """Past chunks a frame may attend to under chunk-causal attention; None = all."""
    causal_convolution: bool = False
    """Depthwise convolutions see only the past, even inside a chunk."""
    streaming: StreamingConfig | None = None
    """Chunks that it was fine-tuned to be used with; None = it was not trained to stream."""

    def __post_init__(self) -> None:
        least = dict.fromkeys(("width", "num_layers", "num_heads", "ffn_width", "num_mels"), 1)
        least |= {"kernel_size": 1, "chunk_frames": 1, "left_chunks": 0}
        require_at_least(self, least)
        require_probabilities(self, ("dropout", "drop_path"))
        if self.width % (2 * self.num_heads):
            raise ConfigError(
                f"`width` must be divisible by twice `num_heads` ({2 * self.num_heads}), "
                f"but is {self.width} instead"
            )
        if self.left_chunks is not None and self.chunk_frames is None:
            raise ConfigError("`left_chunks` has no meaning without `chunk_frames`; set both")
        if not 0.0 <= self.normalization_prior_seconds < math.inf:
            raise ConfigError(
                "`normalization_prior_seconds` must be at least 0, but is "
                f"{self.normalization_prior_seconds} instead"
            )
        if self.normalization_prior_seconds and self.normalization != "utterance":
            raise ConfigError(
                "`normalization_prior_seconds` has no meaning with `normalization: "
                f"{self.normalization}`; leave it out"
            )
        if self.kernel_size % 2 == 0:
            raise ConfigError(f"`kernel_size` must be odd, but is {self.kernel_size} instead")


PRESETS: dict[str, SpeechEncoderConfig] = {
    "tiny": SpeechEncoderConfig(frame_rate=25),
    "small": SpeechEncoderConfig(width=384, num_layers=10, num_heads=6, ffn_width=1536),
    "base": SpeechEncoderConfig(width=768, num_layers=12, num_heads=12, ffn_width=3072),
}


class SpeechEncoder(Encoder):
    """Log-mel frames, strided convolutions, pre-norm blocks with rotary positions.

    Args:
        config: Sizes.
    """

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_encoder = LogMelFeatureEncoder(
            config.width,
            config.frame_rate,
            config.num_mels,
            config.normalization,
            config.dropout,
            config.normalization_prior_seconds,
            config.pitch,
        )
        last = max(1, config.num_layers - 1)
        self.blocks = nn.ModuleList(
            Block(
                config.width,
                config.num_heads,
                config.ffn_width,
                config.kernel_size,
                config.dropout,
                config.drop_path * i / last,
                config.causal_convolution,
            )
            for i in range(config.num_layers)
        )
        if config.streaming is not None:
            self.set_streaming(config.streaming)
        self.norm = nn.LayerNorm(config.width)
        self.apply(_initialize)

    def set_dropout(self, dropout: float, drop_path: float) -> None:
        """Change the probabilities of dropout and of drop-path (the last block's)."""
        self.config = replace(self.config, dropout=dropout, drop_path=drop_path)
        self.feature_encoder.dropout.p = dropout
        for i, block in enumerate(self.blocks):
            block.set_dropout(dropout, drop_path * i / max(1, len(self.blocks) - 1))  # type: ignore[operator]

    def set_streaming(self, streaming: StreamingConfig) -> None:
        """Make it an encoder that can be trained to stream, with these chunks."""
        self.config = replace(self.config, streaming=streaming)
        self.feature_encoder.log_mel.learn_to_stream()

    def set_prior(self, seconds: float) -> None:
        """Change how much the statistics of the training data weigh (seconds)."""
        self.config = replace(self.config, normalization_prior_seconds=seconds)
        self.feature_encoder.log_mel.set_prior(seconds)

    def learn_pitch(self) -> None:
        """Make it an encoder that hears the pitch, unless it is one."""
        self.config = replace(self.config, pitch=True)
        self.feature_encoder.learn_pitch()

    @property
    def chunks(self) -> Chunks | None:
        """The chunks of its settings; None = everything is seen."""
        if self.config.chunk_frames is None:
            return None
        return Chunks(self.config.chunk_frames, self.config.left_chunks)

    def extract_features(
        self, waveform: Tensor, lengths: Tensor, *, streaming: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return front-end features (B, T, D) of waveform (B, S), and their lengths (B,).

        `streaming` normalises them as a stream's are.
        """
        return self.feature_encoder(waveform, lengths, streaming=streaming)

    def contextualize(
        self,
        features: Tensor,
        lengths: Tensor,
        *,
        context_mask: Tensor | None = None,
        return_layers: bool = False,
        return_ffn: bool = False,
        chunks: Chunks | None = None,
    ) -> EncoderOutput:
        """Run the blocks over front-end features, as `Encoder.contextualize` says.

        `chunks` limits what a frame sees as `SpeechEncoderConfig.chunk_frames` does.
        """
        chunks = self.chunks if chunks is None else chunks
        batch, num_frames, _ = features.shape
        positions = torch.arange(num_frames, device=features.device)[None].expand(batch, -1)
        indices = None
        x = features
        if context_mask is not None:
            visible = context_mask & ~padding_mask(lengths, num_frames)
            x, lengths, indices = pack_visible(features, visible)
            positions = indices
        valid = ~padding_mask(lengths, x.shape[1])
        layout = FrameLayout(valid, indices, num_frames)
        mask = None if layout.all_valid else valid[:, None, None, :]
        if chunks is not None:
            chunked = chunk_causal_mask(positions, chunks.frames, chunks.left)
            mask = chunked if mask is None else chunked & mask
        if mask is not None:
            mask = _never_empty(mask)
        head_dim = self.config.width // self.config.num_heads
        rotary = rotary_angles(positions, head_dim)
        layers, ffn_outputs = [x], []
        for block in self.blocks:
            x, ffn_output = block(
                x, rotary, mask, layout, None if chunks is None else chunks.frames
            )
            layers.append(x)
            ffn_outputs.append(ffn_output)
        return EncoderOutput(
            self.norm(x),
            lengths,
            layers if return_layers else None,
            ffn_outputs if return_ffn else None,
            indices,
        )

    def encode_in_chunks(self, waveform: Tensor, lengths: Tensor, chunks: Chunks) -> EncoderOutput:
        """Encode waveform (B, S) as streams would, chunk after chunk, but all at once."""
        features, lengths = self.extract_features(waveform, lengths, streaming=True)
        return self.contextualize(features, lengths, chunks=chunks)


def preset_config(name: str, **changes: object) -> SpeechEncoderConfig:
    """Return a preset's sizes with some of them changed."""
    return replace(PRESETS[name], **changes)  # type: ignore[arg-type]


def _never_empty(mask: Tensor) -> Tensor:
    """Let rows that may attend to nothing (padding) attend to everything: softmax stays finite."""
    return mask | ~mask.any(dim=-1, keepdim=True)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
