"""Targets and loss of latent prediction have their hand-computed values and ignore padding."""

from __future__ import annotations

import pytest
import torch

from speechjepa.objectives.latent import (
    Mean,
    instance_norm,
    latent_prediction_loss,
    layer_targets,
)


def test_the_loss_is_the_mean_squared_error_of_hidden_frames():
    predictions = torch.tensor([[[1.0, 2.0], [0.0, 0.0], [5.0, 5.0]]])
    targets = torch.tensor([[[0.0, 0.0], [3.0, 1.0], [-9.0, 9.0]]])
    mean = latent_prediction_loss(predictions, targets, torch.tensor([[True, True, False]]))
    assert mean.total.item() == pytest.approx(2.5 + 5.0)
    assert mean.number.item() == 2
    assert mean.value.item() == pytest.approx(3.75)


def test_the_gradient_is_that_of_the_equation_and_none_at_visible_frames():
    predictions = torch.randn(2, 4, 3, requires_grad=True)
    targets = torch.randn(2, 4, 3)
    mask = torch.tensor([[True, False, True, False], [False, False, False, True]])
    latent_prediction_loss(predictions, targets, mask).value.backward()
    expected = 2 * (predictions.detach() - targets) / 3 / 3 * mask[:, :, None]
    torch.testing.assert_close(predictions.grad, expected)


def test_nothing_to_predict_is_a_loss_of_zero():
    predictions = torch.randn(1, 3, 2, requires_grad=True)
    mask = torch.zeros(1, 3, dtype=torch.bool)
    loss = latent_prediction_loss(predictions, torch.randn(1, 3, 2), mask).value
    loss.backward()
    assert loss.item() == 0.0 and not predictions.grad.any()


def test_means_of_shares_add_up_to_the_mean_of_the_whole():
    predictions, targets = torch.randn(4, 5, 3), torch.randn(4, 5, 3)
    mask = torch.rand(4, 5) < 0.5
    whole = latent_prediction_loss(predictions, targets, mask)
    shares = [latent_prediction_loss(predictions[i::2], targets[i::2], mask[i::2]) for i in (0, 1)]
    summed = Mean(shares[0].total + shares[1].total, shares[0].number + shares[1].number)
    assert summed.value.item() == pytest.approx(whole.value.item(), rel=1e-6)


def test_instance_norm_by_hand():
    x = torch.tensor([[[1.0, 10.0], [3.0, 10.0]]])
    normalized = instance_norm(x, torch.tensor([2]), eps=0.0 + 1e-12)
    torch.testing.assert_close(normalized, torch.tensor([[[-1.0, 0.0], [1.0, 0.0]]]))


def test_padding_does_not_change_the_targets():
    layers = [torch.randn(2, 6, 4) for _ in range(3)]
    lengths = torch.tensor([6, 4])
    targets = layer_targets(layers, lengths, 2)
    alone = layer_targets([layer[1:, :4] for layer in layers], torch.tensor([4]), 2)
    torch.testing.assert_close(targets[1:, :4], alone)
    assert not targets[1, 4:].any()
    for layer in layers:
        layer[1, 4:] = torch.nan
    torch.testing.assert_close(layer_targets(layers, lengths, 2), targets)


def test_targets_average_the_top_layers_alone():
    layers = [torch.randn(1, 5, 2) for _ in range(4)]
    lengths = torch.tensor([5])
    expected = (instance_norm(layers[2], lengths) + instance_norm(layers[3], lengths)) / 2
    torch.testing.assert_close(layer_targets(layers, lengths, 2), expected)
    all_of_them = layer_targets(layers, lengths, 4)
    assert torch.equal(layer_targets(layers, lengths, 9), all_of_them)
    with pytest.raises(ValueError, match="`average_top_k_layers` must be at least 1, but is 0"):
        layer_targets(layers, lengths, 0)
