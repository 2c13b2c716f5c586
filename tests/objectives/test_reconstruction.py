"""The reconstruction loss has its hand-computed value and gradient."""

from __future__ import annotations

import pytest
import torch

from speechjepa.objectives.reconstruction import reconstruction_loss


def test_the_loss_is_the_mean_absolute_error_of_hidden_frames():
    predictions = torch.tensor([[[1.0, -2.0], [4.0, 4.0], [7.0, 7.0]]])
    log_mel = torch.tensor([[[0.0, 0.0], [3.0, 1.0], [0.0, 0.0]]])
    mean = reconstruction_loss(predictions, log_mel, torch.tensor([[True, True, False]]))
    assert mean.total.item() == pytest.approx(1.5 + 2.0)
    assert mean.value.item() == pytest.approx(1.75)


def test_the_gradient_is_the_sign_of_the_error_at_hidden_frames():
    predictions = torch.randn(1, 4, 2, requires_grad=True)
    log_mel = torch.randn(1, 4, 2)
    mask = torch.tensor([[False, True, True, False]])
    reconstruction_loss(predictions, log_mel, mask).value.backward()
    expected = (predictions.detach() - log_mel).sign() / 2 / 2 * mask[:, :, None]
    torch.testing.assert_close(predictions.grad, expected)


def test_padding_does_not_change_the_loss():
    predictions, log_mel = torch.randn(1, 4, 2), torch.randn(1, 4, 2)
    mask = torch.tensor([[True, False, True, True]])
    alone = reconstruction_loss(predictions, log_mel, mask).value
    padded = [
        torch.cat([x, torch.full((1, 3, 2), 9.0 * i)], dim=1)
        for i, x in enumerate((predictions, log_mel))
    ]
    longer = torch.cat([mask, torch.zeros(1, 3, dtype=torch.bool)], dim=1)
    assert reconstruction_loss(*padded, longer).value.item() == pytest.approx(alone.item())
