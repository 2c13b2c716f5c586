"""The contrastive loss has its textbook value and gradient, and ignores padding."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from speechjepa.objectives.contrastive import (
    contrastive_loss,
    diversity_loss,
    feature_penalty,
    sample_distractors,
)


def example(batch: int = 3, frames: int = 12, width: int = 8, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    predictions = torch.randn(batch, frames, width, generator=generator)
    targets = torch.randn(batch, frames, width, generator=generator)
    return predictions, targets, torch.tensor([frames, 7, 2][:batch])


def plain_loss(predictions, targets, lengths, distractors, temp):
    """The equation, frame by frame."""
    losses = []
    for b, length in enumerate(lengths.tolist()):
        for t in range(length if length > 1 else 0):
            scores = [F.cosine_similarity(predictions[b, t], targets[b, t], dim=0) / temp]
            for k in distractors[b, t].tolist():
                if not torch.equal(targets[b, k], targets[b, t]):
                    scores.append(
                        F.cosine_similarity(predictions[b, t], targets[b, k], dim=0) / temp
                    )
            losses.append(-torch.log_softmax(torch.stack(scores), dim=0)[0])
    return torch.stack(losses).mean()


def test_the_loss_of_two_orthogonal_targets_is_the_hand_computed_one():
    targets = torch.tensor([[[3.0, 0.0], [0.0, 0.5]]])
    predictions = torch.tensor([[[2.0, 0.0], [1.0, 1.0]]])
    output = contrastive_loss(
        predictions, targets, torch.tensor([2]), num_negatives=3, latent_temp=0.5
    )
    first = -math.log(math.exp(2) / (math.exp(2) + 3 * math.exp(0)))
    second = -math.log(1 / 4)
    assert output.loss.item() == pytest.approx((first + second) / 2, rel=1e-6)
    assert output.count.item() == 2
    assert output.accuracy.item() == 0.5


def test_the_loss_equals_the_equation_frame_by_frame():
    predictions, targets, lengths = example()
    targets[0, 3] = targets[0, 5]
    distractors = sample_distractors(lengths, 12, 20)
    output = contrastive_loss(predictions, targets, lengths, distractors=distractors)
    expected = plain_loss(predictions, targets, lengths, distractors, 0.1)
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_gradient_equals_that_of_the_equation():
    predictions, targets, lengths = example()
    distractors = sample_distractors(lengths, 12, 20)
    gradients = []
    for loss_of in (
        lambda c, q: contrastive_loss(c, q, lengths, distractors=distractors).loss,
        lambda c, q: plain_loss(c, q, lengths, distractors, 0.1),
    ):
        c, q = predictions.clone().requires_grad_(), targets.clone().requires_grad_()
        gradients.append(torch.autograd.grad(loss_of(c, q), [c, q]))
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_padding_changes_neither_the_loss_nor_the_gradient():
    predictions, targets, lengths = example()
    distractors = sample_distractors(lengths, 12, 20)
    plain = predictions.clone().requires_grad_()
    expected = contrastive_loss(plain, targets, lengths, distractors=distractors)
    expected.loss.backward()
    wide = torch.full((3, 20, 8), torch.nan)
    wide[:, :12] = predictions
    wide[1, 7:] = 1e6
    wide.requires_grad_()
    wide_targets = F.pad(targets, (0, 0, 0, 8), value=torch.nan)
    wide_distractors = F.pad(distractors, (0, 0, 0, 8))
    output = contrastive_loss(wide, wide_targets, lengths, distractors=wide_distractors)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    assert output.count == expected.count and output.correct == expected.correct
    torch.testing.assert_close(wide.grad[:, :12], plain.grad)
    assert wide.grad[:, 12:].abs().max() == 0 and wide.grad[1, 7:].abs().max() == 0


def test_sums_and_counts_of_two_ranks_add_up_to_one():
    predictions, targets, lengths = example()
    distractors = sample_distractors(lengths, 12, 20)
    whole = contrastive_loss(predictions, targets, lengths, distractors=distractors)
    parts = [
        contrastive_loss(predictions[i], targets[i], lengths[i], distractors=distractors[i])
        for i in (slice(0, 1), slice(1, 3))
    ]
    total = sum(part.loss_sum for part in parts) / sum(part.count for part in parts)
    assert total.item() == pytest.approx(whole.loss.item(), rel=1e-6)
    assert sum(part.correct for part in parts) == whole.correct


def test_distractors_equal_to_the_target_are_left_out():
    predictions = torch.randn(1, 4, 8)
    targets = torch.randn(1, 1, 8).expand(1, 4, 8)
    output = contrastive_loss(predictions, targets, torch.tensor([4]))
    assert output.loss.item() == 0 and output.count == 4
    assert output.accuracy.item() == 0, "a collapsed codebook is not a perfect prediction"


def test_codes_decide_which_targets_are_equal_when_given():
    predictions, targets, lengths = example(batch=1)
    codes = torch.zeros(1, 12, 2, dtype=torch.long)
    assert contrastive_loss(predictions, targets, lengths, codes=codes).loss.item() == 0
    codes[0, :, 1] = torch.arange(12)
    assert contrastive_loss(predictions, targets, lengths, codes=codes).loss.item() > 0


def test_an_utterance_with_one_masked_frame_is_not_counted():
    predictions, targets, _ = example()
    output = contrastive_loss(predictions, targets, torch.tensor([1, 0, 1]))
    assert output.loss.item() == 0 and output.count == 0 and output.accuracy == 0


def test_the_loss_is_computed_in_float32_from_bfloat16_inputs():
    predictions, targets, lengths = example()
    low = predictions.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = contrastive_loss(low, targets, lengths, generator=torch.Generator().manual_seed(1))
    high = contrastive_loss(
        low.float(), targets, lengths, generator=torch.Generator().manual_seed(1)
    )
    assert output.loss.dtype == torch.float32
    assert output.loss.item() == high.loss.item()


def test_distractors_are_other_frames_of_the_utterance_drawn_uniformly():
    lengths = torch.tensor([6, 3])
    draws = sample_distractors(lengths, 6, 6000, generator=torch.Generator().manual_seed(0))
    assert draws.shape == (2, 6, 6000)
    for row, length in enumerate([6, 3]):
        for frame in range(length):
            counts = torch.bincount(draws[row, frame], minlength=6)
            others = [k for k in range(length) if k != frame]
            assert counts[frame] == 0 and counts[others].sum() == 6000
            assert counts[others].min() > 0.9 * 6000 / (length - 1)


def test_the_same_generator_seed_draws_the_same_distractors():
    lengths = torch.tensor([9, 4])
    first, second = (
        sample_distractors(lengths, 9, 10, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_diversity_is_zero_for_equal_use_and_largest_for_one_entry():
    assert diversity_loss(torch.full((2, 320), 1 / 320)).item() == pytest.approx(0, abs=1e-5)
    one = torch.zeros(2, 320)
    one[:, 7] = 1
    assert diversity_loss(one).item() == pytest.approx(1 - 1 / 320, rel=1e-6)
    half = torch.zeros(1, 4)
    half[0, :2] = 0.5
    assert diversity_loss(half).item() == pytest.approx(0.5, rel=1e-6)


def test_descending_the_diversity_loss_evens_out_the_codebook():
    logits = torch.randn(1, 8, generator=torch.Generator().manual_seed(0)).mul(2).requires_grad_()
    for _ in range(200):
        (gradient,) = torch.autograd.grad(diversity_loss(logits.softmax(-1)), logits)
        logits = (logits - 2 * gradient).detach().requires_grad_()
    assert diversity_loss(logits.softmax(-1)).item() < 0.01


def test_the_feature_penalty_is_the_mean_square_of_valid_frames():
    features = torch.tensor([[[1.0, 3.0], [2.0, 0.0]], [[2.0, 2.0], [torch.nan, 9.0]]])
    penalty = feature_penalty(features, torch.tensor([2, 1]))
    assert penalty.item() == pytest.approx((1 + 9 + 4 + 0 + 4 + 4) / 6)
