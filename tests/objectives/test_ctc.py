"""The CTC loss has its hand-computed value, equals torch's, and refuses what cannot fit."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from speechjepa.objectives.ctc import ctc_loss, frames_needed


@pytest.mark.parametrize(
    ("token_ids", "frames"),
    [([], 0), ([3], 1), ([1, 2, 1], 3), ([1, 1], 3), ([2, 2, 2, 1, 1], 8)],
)
def test_frames_needed_counts_a_blank_between_equal_neighbours(token_ids, frames):
    assert frames_needed(torch.tensor(token_ids, dtype=torch.long)) == frames


def test_the_loss_by_hand():
    # Two frames, two symbols, all equally likely: aa, a-, -a of four paths spell "a".
    mean = ctc_loss(torch.zeros(1, 2, 2), torch.tensor([2]), [torch.tensor([1])])
    assert mean.total.item() == pytest.approx(-math.log(3 / 4), rel=1e-6)
    assert mean.number.item() == 1


def test_the_loss_and_its_gradient_equal_torchs():
    lengths, token_ids = torch.tensor([9, 6]), [torch.tensor([1, 1, 3]), torch.tensor([2, 4])]
    logits = torch.randn(2, 9, 5, requires_grad=True)
    ours = ctc_loss(logits, lengths, token_ids)
    expected = functional.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1),
        torch.nn.utils.rnn.pad_sequence(token_ids, batch_first=True),
        lengths,
        torch.tensor([3, 2]),
        reduction="sum",
    )
    assert ours.total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert ours.value.item() == pytest.approx(expected.item() / 5, rel=1e-6)
    (gradient,) = torch.autograd.grad(ours.total, logits)
    (wanted,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, wanted)


def test_padding_does_not_change_the_loss():
    logits = torch.randn(1, 6, 5)
    alone = ctc_loss(logits, torch.tensor([6]), [torch.tensor([2, 4])]).total
    padded = torch.cat([logits, torch.full((1, 4, 5), 7.0)], dim=1)
    longer = ctc_loss(padded, torch.tensor([6]), [torch.tensor([2, 4])]).total
    assert longer.item() == pytest.approx(alone.item(), rel=1e-6)


def test_the_loss_is_computed_in_float32():
    logits = torch.randn(1, 40, 6).to(torch.bfloat16)
    found = ctc_loss(logits, torch.tensor([40]), [torch.arange(1, 6)]).total
    assert found.dtype == torch.float32
    same = ctc_loss(logits.float(), torch.tensor([40]), [torch.arange(1, 6)]).total
    assert found.item() == pytest.approx(same.item(), rel=1e-6)


def test_a_transcript_that_does_not_fit_is_named_not_swallowed():
    with pytest.raises(ValueError, match="utterance 1 of the batch needs 3 frames, but has 2"):
        ctc_loss(
            torch.zeros(2, 4, 3), torch.tensor([4, 2]), [torch.tensor([1]), torch.tensor([2, 2])]
        )
