"""Translation models: any encoder with a head that writes units or characters of another language.

Token ids are those of CTC: 0 is the blank, unit u is u + 1. An autoregressive decoder has no blank;
there 0 is what stands before the first unit and after the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from speechjepa.errors import ConfigError
from speechjepa.models.encoder import Encoder, require_at_least
from speechjepa.nn.decoder import Cache, DecoderBlock
from speechjepa.nn.packing import FrameLayout
from speechjepa.nn.transformer import (
    Block,
    BlockState,
    Chunks,
    chunk_causal_mask,
    rotary_angles,
)
from speechjepa.shapes import padding_mask

END = 0
"""Of an autoregressive decoder: before the first token and after the last."""


@dataclass(frozen=True, kw_only=True)
class TranslatorConfig:
    """Sizes of what stands above the encoder; travels inside every translation bundle."""

    head: Literal["ctc", "autoregressive"] = "ctc"
    """"ctc": every frame writes a token or the blank, which means wait; it can stream.
    "autoregressive": a decoder writes one token after the other, found by beam search."""
    num_layers: int = 4
    """Blocks between the encoder and the tokens. Word order changes here."""
    head_channels: int = 64
    """Channels of one attention head."""
    ffn_factor: int = 4
    """Hidden channels of the feed-forward parts, as a multiple of the encoder's width."""
    upsample: int = 2
    """CTC frames per encoder frame."""
    kernel_size: int = 15
    """CTC: frames of the depthwise convolutions, odd."""
    source_symbols: int = 0
    """Symbols of the source's transcript, blank included, that an auxiliary CTC loss has; 0 = no
    such loss."""
    text_symbols: int = 0
    """Symbols of the target's text, blank included, likewise."""

    def __post_init__(self) -> None:
        least = dict.fromkeys(("num_layers", "head_channels", "ffn_factor", "upsample"), 1)
        least |= {"kernel_size": 1, "source_symbols": 0, "text_symbols": 0}
        require_at_least(self, least)
        if self.kernel_size % 2 == 0:
            raise ConfigError(f"`kernel_size` must be odd, but is {self.kernel_size} instead")


class CtcTranslation(NamedTuple):
    """What a CTC translator says of every frame."""

    logits: Tensor
    """(B, T * upsample, V) float32, of units or characters."""
    lengths: Tensor
    """(B,) int64, valid logit frames."""
    source_logits: Tensor | None
    """(B, T * upsample, V') float32, of the source's characters, from the encoder's output."""
    text_logits: Tensor | None
    """(B, T * upsample, V'') float32, of the target's characters, from the middle block."""


class CtcTranslator(nn.Module):
    """Blocks above an encoder that write the tokens of another language, all at once.

    After NAST-S2S (https://arxiv.org/abs/2406.06937): full or chunk-causal attention, CTC over
    deduplicated units, more places for units than frames. Differs from the paper: no glancing
    training; one stack of blocks, with the target's characters as an auxiliary loss halfway up;
    the places are made by the last layer, not by copying frames, which costs nothing.

    Args:
        width: Channels D of the encoder.
        num_tokens: V, blank included.
        config: Sizes.
        dropout: Probability, in attention weights and residual branches.
    """

    def __init__(
        self,
        width: int,
        num_tokens: int,
        config: TranslatorConfig,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = config
        self.width = width
        self.num_tokens = num_tokens
        self.blocks = nn.ModuleList(
            Block(
                width,
                _num_heads(width, config),
                width * config.ffn_factor,
                config.kernel_size,
                dropout,
                0.0,
                False,
            )
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_tokens * config.upsample)
        sizes = {"source": config.source_symbols, "text": config.text_symbols}
        self.auxiliary = nn.ModuleDict(
            {k: nn.Linear(width, n * config.upsample) for k, n in sizes.items() if n}
        )
        _initialize(self)

    def set_dropout(self, dropout: float) -> None:
        """Change the probability of dropout."""
        for block in self.blocks:
            block.set_dropout(dropout, 0.0)  # type: ignore[operator]

    def forward(
        self, features: Tensor, lengths: Tensor, chunks: Chunks | None = None
    ) -> CtcTranslation:
        """Return the logits of encoder output (B, T, D) of `lengths` frames (B,).

        Args:
            features: (B, T, D).
            lengths: (B,) valid frames.
            chunks: Those that the encoder heard them in; None = everything at once.
        """
        source = self._auxiliary("source", features)
        x = features
        batch, num_frames, _ = x.shape
        positions = torch.arange(num_frames, device=x.device)[None].expand(batch, -1)
        valid = ~padding_mask(lengths, num_frames)
        layout = FrameLayout(valid, None, num_frames)
        mask = None if layout.all_valid else valid[:, None, None, :]
        if chunks is not None:
            chunked = chunk_causal_mask(positions, chunks.frames, chunks.left)
            mask = chunked if mask is None else chunked & mask
        if mask is not None:
            mask = mask | ~mask.any(dim=-1, keepdim=True)  # padding may attend: softmax is finite
        rotary = rotary_angles(positions, self.width // _num_heads(self.width, self.config))
        text = None
        for number, block in enumerate(self.blocks, start=1):
            x, _ = block(x, rotary, mask, layout, None if chunks is None else chunks.frames)
            if number == self._text_block:
                text = self._auxiliary("text", x)
        with torch.autocast(x.device.type, enabled=False):
            logits = _upsampled(self.head(self.norm(x.float())), self.config.upsample)
        return CtcTranslation(logits, lengths * self.config.upsample, source, text)

    @property
    def _text_block(self) -> int:
        """The block, from 1, whose output the target's characters are read from."""
        return (len(self.blocks) + 1) // 2

    def start_stream(self) -> list[BlockState]:
        """Return the states of a stream of which nothing was heard yet."""
        return [block.start_stream() for block in self.blocks]  # type: ignore[operator]

    def step(
        self, features: Tensor, states: list[BlockState], most: int | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits and text logits (1, T * upsample, V) of the next chunk of a stream.

        Together they equal those of `forward` with the same chunks.

        Args:
            features: (1, T, D) of the encoder, all the frames of the chunk.
            states: From `start_stream`, and changed in place.
            most: Frames that later chunks may attend to; None = all.
        """
        x, text = features, None
        for number, (block, state) in enumerate(zip(self.blocks, states, strict=True), start=1):
            x = block.step(x, state, most)  # type: ignore[operator]
            if number == self._text_block:
                text = self._auxiliary("text", x)
        return _upsampled(self.head(self.norm(x.float())), self.config.upsample), text

    def _auxiliary(self, name: str, x: Tensor) -> Tensor | None:
        if name not in self.auxiliary:
            return None
        with torch.autocast(x.device.type, enabled=False):
            return _upsampled(self.auxiliary[name](x.float()), self.config.upsample)


class Memory(NamedTuple):
    """What an autoregressive decoder attends to."""

    layers: list[Cache]
    """Keys and values of every block."""
    mask: Tensor | None
    """(B, 1, 1, T) True = may attend."""


class UnitDecoder(nn.Module):
    """An autoregressive decoder over the tokens of another language.

    Direct speech-to-unit translation, https://arxiv.org/abs/2107.05604.

    Args:
        width: Channels D of the encoder, and of the decoder.
        num_tokens: V, `END` included.
        config: Sizes.
        dropout: Probability.
    """

    def __init__(
        self, width: int, num_tokens: int, config: TranslatorConfig, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.config = config
        self.width = width
        self.num_tokens = num_tokens
        heads = _num_heads(width, config)
        self.embedding = nn.Embedding(num_tokens, width)
        self.blocks = nn.ModuleList(
            DecoderBlock(width, heads, width * config.ffn_factor, dropout)
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_tokens)
        sizes = {"source": config.source_symbols * config.upsample}
        self.auxiliary = nn.ModuleDict({k: nn.Linear(width, n) for k, n in sizes.items() if n})
        _initialize(self)

    def set_dropout(self, dropout: float) -> None:
        """Change the probability of dropout."""
        for block in self.blocks:
            block.dropout.p = dropout  # type: ignore[union-attr]

    def source_logits(self, features: Tensor) -> Tensor | None:
        """Return logits (B, T * upsample, V') of the source's characters; None = no such loss."""
        if "source" not in self.auxiliary:
            return None
        with torch.autocast(features.device.type, enabled=False):
            return _upsampled(self.auxiliary["source"](features.float()), self.config.upsample)

    def remember(self, features: Tensor, lengths: Tensor) -> Memory:
        """Prepare encoder output (B, T, D) of `lengths` frames (B,) to be attended to."""
        mask = ~padding_mask(lengths, features.shape[1])
        layers = [block.remember(features) for block in self.blocks]  # type: ignore[operator]
        return Memory(layers, mask[:, None, None, :])

    def forward(
        self, token_ids: Tensor, memory: Memory, caches: Sequence[Cache] | None = None
    ) -> tuple[Tensor, list[Cache]]:
        """Return logits (B, L, V) float32 of the token after each, and the caches.

        Args:
            token_ids: (B, L), the first one `END`; with caches, the newest alone.
            memory: From `remember`.
            caches: Of the tokens before.
        """
        before = 0 if caches is None else caches[0][0].shape[2]
        batch, size = token_ids.shape
        positions = torch.arange(before, before + size, device=token_ids.device)[None]
        heads = _num_heads(self.width, self.config)
        rotary = rotary_angles(positions.expand(batch, -1), self.width // heads)
        x = self.embedding(token_ids) * self.width**0.5
        grown = []
        for number, block in enumerate(self.blocks):
            cache = None if caches is None else caches[number]
            x, cache = block(x, rotary, memory.layers[number], memory.mask, cache)
            grown.append(cache)
        with torch.autocast(x.device.type, enabled=False):
            return self.head(self.norm(x.float())), grown


Translator = CtcTranslator | UnitDecoder


class SpeechTranslationModel(nn.Module):
    """An encoder and what translates its output.

    Args:
        encoder: Any encoder of this package.
        num_tokens: V, with the blank or `END`.
        config: Sizes of the translator.
    """

    encoder: Encoder
    translator: Translator

    def __init__(self, encoder: Encoder, num_tokens: int, config: TranslatorConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.translator = build_translator(encoder, num_tokens, config)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the CTC frames (B,) of utterances of `lengths` samples (B,)."""
        return self.encoder.output_lengths(lengths) * self.translator.config.upsample


def build_translator(encoder: Encoder, num_tokens: int, config: TranslatorConfig) -> Translator:
    """Return a translator with fresh weights that fits an encoder."""
    if config.head == "autoregressive":
        return UnitDecoder(encoder.width, num_tokens, config)
    return CtcTranslator(encoder.width, num_tokens, config)


def tokens_of(units: Tensor) -> Tensor:
    """Return the token ids of units (L,)."""
    return units + 1


def collapse(path: Iterable[int]) -> list[int]:
    """Return the tokens of a CTC path: repeats once, no blanks."""
    found: list[int] = []
    previous = 0
    for token in path:
        if token not in (0, previous):
            found.append(int(token))
        previous = token
    return found


def _upsampled(x: Tensor, upsample: int) -> Tensor:
    """Return (B, T * upsample, V) of (B, T, upsample * V): several places for each frame."""
    return x.reshape(x.shape[0], x.shape[1] * upsample, -1)


def _num_heads(width: int, config: TranslatorConfig) -> int:
    heads = max(1, width // config.head_channels)
    if width % (2 * heads):
        raise ConfigError(
            f"`head_channels` {config.head_channels} must divide the encoder's width {width}"
        )
    return heads


def _initialize(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=part.embedding_dim**-0.5)
