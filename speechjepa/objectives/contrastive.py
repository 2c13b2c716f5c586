"""The wav2vec 2.0 losses: contrast with distractors, codebook diversity, feature penalty."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from speechjepa.nn.quantizer import code_perplexity
from speechjepa.shapes import padding_mask


@dataclass(frozen=True)
class ContrastiveOutput:
    """Output of `contrastive_loss`; sums and counts add up over batches and ranks."""

    loss: Tensor
    """() nats, `loss_sum / count`; 0 when `count` is 0."""
    loss_sum: Tensor
    """() nats, summed over the counted frames."""
    count: Tensor
    """() int64, frames counted: valid frames of utterances with at least two of them."""
    correct: Tensor
    """() int64, counted frames whose target beats every distractor; one must differ from it."""

    @property
    def accuracy(self) -> Tensor:
        """Share of counted frames whose target beats every distractor, 0 to 1."""
        return self.correct / self.count.clamp_min(1)


def contrastive_loss(
    predictions: Tensor,
    targets: Tensor,
    lengths: Tensor,
    *,
    num_negatives: int = 100,
    latent_temp: float = 0.1,
    codes: Tensor | None = None,
    distractors: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> ContrastiveOutput:
    """Return the InfoNCE loss of predictions against targets of the same utterance.

    For each masked frame t: -log(exp(cos(c_t, q_t) / temp) / sum_k exp(cos(c_t, q_k) / temp)), k
    over the target and `num_negatives` distractors. wav2vec 2.0, equation 3,
    https://arxiv.org/abs/2006.11477. Gradients flow into predictions and targets. Distractors equal
    to the target are left out of the sum, as in the authors' code. Reduction: mean over frames (for
    several ranks: sum of `loss_sum` over sum of `count`). float32 whatever the input.

    Differs from the paper: a frame alone in its utterance has no distractor and is not counted.

    Args:
        predictions: (B, M, C) at the masked frames, packed.
        targets: (B, M, C) quantized vectors at the same frames.
        lengths: (B,) number of masked frames of each utterance; what lies beyond is ignored.
        num_negatives: K, distractors drawn per frame, with replacement.
        latent_temp: Temperature that cosine similarities are divided by.
        codes: (B, M, G) int64 that say which targets are equal. When not given, targets are equal
            when all their components are; rounding in a projection may break such ties.
        distractors: (B, M, K) frame indices to use in place of a draw.
        generator: Source of the draw, on the device of `lengths`.
    """
    num_frames = predictions.shape[1]
    if distractors is None:
        distractors = sample_distractors(lengths, num_frames, num_negatives, generator=generator)
    padding = padding_mask(lengths, num_frames)  # (B, M)
    keys = _row_keys(targets.detach().float().view(torch.int32) if codes is None else codes)
    same = keys.gather(1, distractors.flatten(1)).view_as(distractors) == keys[:, :, None]
    with torch.autocast(predictions.device.type, enabled=False):
        c = F.normalize(predictions.float().masked_fill(padding[:, :, None], 0.0), dim=-1)
        q = F.normalize(targets.float().masked_fill(padding[:, :, None], 0.0), dim=-1)
        # All pairs cost M^2 C, less memory than gathering (B, M, K, C) distractor vectors.
        similarity = torch.bmm(c, q.transpose(1, 2)) / latent_temp  # (B, M, M)
        positive = similarity.diagonal(dim1=1, dim2=2)[:, :, None]  # (B, M, 1)
        negative = similarity.gather(2, distractors).masked_fill(same, -torch.inf)  # (B, M, K)
        scores = torch.cat([positive, negative], dim=2)
        losses = torch.logsumexp(scores, dim=2) - positive[:, :, 0]  # (B, M)
    counted = ~padding & (lengths >= 2)[:, None]
    count = counted.sum()
    loss_sum = losses.masked_fill(~counted, 0.0).sum()
    with torch.no_grad():
        correct = (positive > negative).all(dim=2) & ~same.all(dim=2) & counted
    return ContrastiveOutput(loss_sum / count.clamp_min(1), loss_sum, count, correct.sum())


def sample_distractors(
    lengths: Tensor,
    num_frames: int,
    num_negatives: int,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw, for every frame, other frames of the same utterance, uniformly and with replacement.

    Args:
        lengths: (B,) number of frames to draw from.
        num_frames: M, the padded number of frames.
        num_negatives: K, draws per frame.
        generator: Source of the draw, on the device of `lengths`.

    Returns:
        (B, M, K) int64 frame indices, below `lengths` and never the frame itself; at padding, and
        in utterances of one frame, only legal to gather with.
    """
    shape = (lengths.shape[0], num_frames, num_negatives)
    uniform = torch.rand(shape, device=lengths.device, generator=generator)
    others = (lengths - 1).clamp_min(1)[:, None, None]
    # Rounding of u * n can reach n itself, hence the minimum.
    draws = torch.minimum((uniform * others).long(), others - 1)
    # Drawing among the n - 1 others and stepping over the frame itself keeps the draw uniform.
    own = torch.arange(num_frames, device=lengths.device)[None, :, None]
    draws = draws + (draws >= own)
    return torch.minimum(draws, (lengths - 1).clamp_min(0)[:, None, None])


def diversity_loss(probabilities: Tensor) -> Tensor:
    """Return how far the codebooks are from equal use: 0 = equal, 1 - 1/V = one entry only.

    mean over g of (V - exp(H(p_g))) / V, for p_g the mean probabilities of codebook g (with several
    ranks: their mean over ranks). https://arxiv.org/abs/2006.11477
    Differs from the paper: equation 4 has -H; this is the perplexity form of the authors' code.

    Args:
        probabilities: (G, V) mean softmax probabilities, without Gumbel noise.
    """
    num_codes = probabilities.shape[1]
    return ((num_codes - code_perplexity(probabilities)) / num_codes).mean()


def feature_penalty(features: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean square of the waveform features over valid frames, before normalisation.

    Keeps their scale from growing without bound; https://arxiv.org/abs/2006.11477, appendix B.

    Args:
        features: (B, T, F) output of the last convolution.
        lengths: (B,) number of valid frames.
    """
    padding = padding_mask(lengths, features.shape[1])
    squares = features.float().masked_fill(padding[:, :, None], 0.0).square()
    return squares.sum() / (lengths.sum().clamp_min(1) * features.shape[2])


def _row_keys(rows: Tensor) -> Tensor:
    """Return (B, M) int64 keys of integer rows (B, M, C), equal for equal rows.

    A sum of products in wrapping 64-bit arithmetic: exact in any order of summation, and different
    rows share a key about once in 2^32 pairs or less.
    """
    source = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (rows.shape[2],), generator=source) * 2 + 1
    return (rows.long() * factors.to(rows.device)).sum(dim=2)
