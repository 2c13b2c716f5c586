"""The Gumbel product quantizer of wav2vec 2.0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechjepa.shapes import padding_mask


@dataclass(frozen=True)
class QuantizerOutput:
    """Output of `GumbelQuantizer`."""

    vectors: Tensor
    """(B, T, C) float32, the chosen entries of the G codebooks side by side; 0 at padding."""
    codes: Tensor
    """(B, T, G) int64, the chosen entry of each codebook; 0 at padding."""
    probabilities: Tensor
    """(G, V) probability of each entry without noise, mean over valid frames."""
    usage: Tensor
    """(G, V) share of valid frames whose most likely entry it is; no gradient."""
    perplexity: Tensor
    """() mean over codebooks of exp(entropy of `usage`): 1 = collapsed, V = all used equally."""
    count: Tensor
    """() number of valid frames; weight `probabilities` by it to average over ranks."""


class GumbelQuantizer(nn.Module):
    """Choose one entry in each of G codebooks for every frame.

    Training samples with Gumbel noise and passes gradients straight through: the forward value is
    the chosen entry, the gradient that of softmax((logits + noise) / temperature). Evaluation takes
    the most likely entry. wav2vec 2.0, section 2, https://arxiv.org/abs/2006.11477

    Args:
        input_width: F, channels of the frames to quantize.
        output_width: C, width of the quantized vectors, divided evenly among codebooks.
        num_codebooks: G.
        num_codes: V, entries per codebook.
    """

    def __init__(
        self,
        input_width: int,
        output_width: int = 256,
        *,
        num_codebooks: int = 2,
        num_codes: int = 320,
    ) -> None:
        super().__init__()
        if output_width % num_codebooks:
            raise ValueError(
                f"`output_width` must be divisible by `num_codebooks` ({num_codebooks}), "
                f"but is {output_width} instead"
            )
        self.output_width = output_width
        self.num_codebooks = num_codebooks
        self.num_codes = num_codes
        self.logits = nn.Linear(input_width, num_codebooks * num_codes)
        nn.init.normal_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        entry_width = output_width // num_codebooks
        self.codebooks = nn.Parameter(torch.rand(num_codebooks, num_codes, entry_width))

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        *,
        temperature: float = 1.0,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> QuantizerOutput:
        """Quantize frames.

        Args:
            features: (B, T, F) frames.
            lengths: (B,) number of valid frames.
            temperature: Of the Gumbel softmax, above 0 (used in training only).
            noise: (B, T, G, V) Gumbel noise to use in place of a draw (used in training only).
            generator: Source of the draw (used in training only).
        """
        batch, num_frames, _ = features.shape
        padding = padding_mask(lengths, num_frames)
        # float32 throughout: log-probabilities of 320 entries are too coarse in bfloat16.
        with torch.autocast(features.device.type, enabled=False):
            logits = self.logits(features.float())
            logits = logits.view(batch, num_frames, self.num_codebooks, self.num_codes)
            # (B, T, G, V); padding may hold anything, so it is replaced, never multiplied away
            logits = logits.masked_fill(padding[:, :, None, None], 0.0)
            if self.training and noise is None:
                noise = gumbel_noise(logits.shape, logits.device, generator)
            weights, codes = self._choose(logits, temperature, noise)
            vectors = torch.einsum("btgv,gvc->btgc", weights, self.codebooks)
            vectors = vectors.reshape(batch, num_frames, self.output_width)  # (B, T, C)
            probabilities, usage, count = _statistics(logits, ~padding)
        return QuantizerOutput(
            vectors=vectors.masked_fill(padding[:, :, None], 0.0),
            codes=codes.masked_fill(padding[:, :, None], 0),
            probabilities=probabilities,
            usage=usage,
            perplexity=code_perplexity(usage).mean(),
            count=count,
        )

    def _choose(
        self, logits: Tensor, temperature: float, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return one-hot weights (B, T, G, V) and the chosen codes (B, T, G)."""
        if not self.training or noise is None:
            codes = logits.argmax(dim=-1)
            return _one_hot(codes, logits), codes
        soft = torch.softmax((logits + noise) / temperature, dim=-1)
        codes = soft.argmax(dim=-1)
        # The bracket is exactly 0, so equal codes give exactly equal vectors.
        return _one_hot(codes, logits) + (soft - soft.detach()), codes


def gumbel_noise(
    shape: Sequence[int], device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Draw standard Gumbel noise, float32."""
    exponential = torch.empty(tuple(shape), device=device).exponential_(generator=generator)
    return -exponential.clamp_min(torch.finfo(exponential.dtype).tiny).log()


def code_perplexity(probabilities: Tensor) -> Tensor:
    """Return exp(entropy) (G,) of distributions (G, V), in number of entries: from 1 to V."""
    p = probabilities.float()
    return torch.exp(-torch.xlogy(p, p.clamp_min(1e-7)).sum(dim=-1))


def _one_hot(codes: Tensor, logits: Tensor) -> Tensor:
    return torch.zeros_like(logits).scatter_(-1, codes[..., None], 1.0)


def _statistics(logits: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean probabilities (G, V), share of most likely entries (G, V), valid frames ()."""
    count = valid.sum()
    weight = valid.to(logits.dtype) / count.clamp_min(1)
    probabilities = torch.einsum("bt,btgv->gv", weight, torch.softmax(logits, dim=-1))
    with torch.no_grad():
        usage = torch.einsum("bt,btgv->gv", weight, _one_hot(logits.argmax(dim=-1), logits))
    return probabilities, usage, count
