"""A transformer decoder block: attends to what was written so far and to an encoder's output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechjepa.nn.cpu import Dropout, attention
from speechjepa.nn.transformer import rotate

Cache = tuple[Tensor, Tensor]
"""Keys and values (B, H, L, width / H) of what was written so far."""


class DecoderBlock(nn.Module):
    """Causal self-attention with rotary positions, cross-attention, feed-forward; all pre-norm.

    https://arxiv.org/abs/1706.03762

    Args:
        width: Channels D.
        num_heads: Attention heads.
        ffn_width: Hidden channels of the feed-forward part.
        dropout: Probability, in attention weights and residual branches.
    """

    def __init__(self, width: int, num_heads: int, ffn_width: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.self_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.self_output = nn.Linear(width, width)
        self.cross_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.cross_output = nn.Linear(width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn_in = nn.Linear(width, ffn_width)
        self.ffn_out = nn.Linear(ffn_width, width)
        self.dropout = Dropout(dropout)

    def remember(self, memory: Tensor) -> Cache:
        """Return keys and values (B, H, T, width / H) of an encoder's output (B, T, D)."""
        key, value = self.key_value(memory).chunk(2, dim=-1)
        return self._heads(key), self._heads(value)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        memory: Cache,
        memory_mask: Tensor | None,
        cache: Cache | None = None,
    ) -> tuple[Tensor, Cache]:
        """Return the output (B, L, D) and the cache with x in it.

        Args:
            x: (B, L, D); L is 1 when there is a cache.
            rotary: Angles of the positions of x.
            memory: From `remember`.
            memory_mask: (B, 1, 1, T) True = may attend; None = everything.
            cache: Of what comes before x.
        """
        query, key, value = map(
            self._heads, self.query_key_value(self.self_norm(x)).chunk(3, dim=-1)
        )
        query, key = rotate(query, *rotary), rotate(key, *rotary)
        if cache is not None:
            key, value = torch.cat([cache[0], key], dim=2), torch.cat([cache[1], value], dim=2)
        mask = None
        if x.shape[1] > 1:
            size = x.shape[1]
            mask = torch.ones(size, size, dtype=torch.bool, device=x.device).tril()[None, None]
        x = x + self.dropout(self.self_output(self._attend(query, key, value, mask)))
        query = self._heads(self.query(self.cross_norm(x)))
        x = x + self.dropout(self.cross_output(self._attend(query, *memory, memory_mask)))
        hidden = self.dropout(functional.gelu(self.ffn_in(self.ffn_norm(x))))
        return x + self.dropout(self.ffn_out(hidden)), (key, value)

    def _heads(self, x: Tensor) -> Tensor:
        batch, size, width = x.shape
        return x.view(batch, size, self.num_heads, width // self.num_heads).transpose(1, 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        rate = self.dropout.p if self.training else 0.0
        found = attention(query, key, value, mask, rate)  # (B, H, L, width / H)
        return found.transpose(1, 2).flatten(2)
