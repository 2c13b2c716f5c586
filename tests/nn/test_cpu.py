"""The fast kernels equal the stock ones, in value and in gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from speechjepa.nn import cpu

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def gradients(function, inputs, weights):
    inputs = [x.clone().requires_grad_() for x in inputs]
    y = function(*inputs)
    (y * weights).sum().backward()
    return [y.detach(), *(x.grad for x in inputs)]


@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_the_stock_operator(masked):
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 7, 8) for _ in range(3)]
    mask = None
    if masked:
        mask = torch.ones(2, 1, 7, 7, dtype=torch.bool).tril()
        mask[1, :, :, 4:] = False
    weights = torch.randn(2, 3, 7, 8)
    ours = gradients(lambda q, k, v: cpu.attention(q, k, v, mask, 0.0), inputs, weights)
    stock = gradients(
        lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, attn_mask=mask),
        inputs,
        weights,
    )
    for found, expected in zip(ours, stock, strict=True):
        assert torch.allclose(found, expected, **CLOSE)


def test_attention_by_hand():
    query = torch.tensor([[[[math.log(3.0)]]]], requires_grad=True)
    key = torch.tensor([[[[1.0], [0.0]]]])
    value = torch.tensor([[[[4.0], [8.0]]]])
    assert cpu.attention(query, key, value, None, 0.0).item() == pytest.approx(5.0)  # 3/4, 1/4


def test_what_may_not_be_attended_to_has_no_influence_at_all():
    torch.manual_seed(0)
    query = torch.randn(1, 1, 4, 8, requires_grad=True)
    key, value = torch.randn(2, 1, 1, 4, 8).unbind()
    mask = torch.tensor([True, True, False, True]).view(1, 1, 1, 4)
    before = cpu.attention(query, key, value, mask, 0.0)
    key[:, :, 2], value[:, :, 2] = 50.0, 1e6
    assert torch.equal(cpu.attention(query, key, value, mask, 0.0), before)


def test_attention_is_the_same_with_and_without_gradient():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 5, 8).unbind()
    query.requires_grad_()
    mask = torch.rand(2, 1, 5, 5) < 0.7
    mask |= torch.eye(5, dtype=torch.bool)
    trained = cpu.attention(query, key, value, mask, 0.0)
    with torch.no_grad():
        assert torch.allclose(cpu.attention(query, key, value, mask, 0.0), trained, **CLOSE)


def test_dropout_takes_weights_away_and_keeps_the_mean():
    torch.manual_seed(0)
    query = torch.zeros(1, 1, 500, 2, requires_grad=True)
    key, value = torch.zeros(1, 1, 500, 2), torch.ones(1, 1, 500, 2)
    y = cpu.attention(query, key, value, None, 0.4)
    assert float(y.detach().mean()) == pytest.approx(1.0, abs=0.01)
    assert float(y.detach().std()) == pytest.approx(math.sqrt(0.4 / 0.6 / 500), rel=0.15)


@pytest.mark.parametrize("frames, kernel", [(9, 5), (1, 5), (3, 7), (20, 1)])
def test_depthwise_convolution_equals_conv1d(frames, kernel):
    torch.manual_seed(0)
    inputs = [torch.randn(2, frames + kernel - 1, 6), torch.randn(6, 1, 1, kernel), torch.randn(6)]
    weights = torch.randn(2, frames, 6)
    ours = gradients(cpu.depthwise_convolution, inputs, weights)
    stock = gradients(
        lambda x, w, b: functional.conv1d(x.mT, w[:, :, 0], b, groups=6).mT, inputs, weights
    )
    for found, expected in zip(ours, stock, strict=True):
        assert torch.allclose(found, expected, **CLOSE)


def test_long_sequences_take_the_stock_path_to_the_same_result(monkeypatch):
    torch.manual_seed(0)
    inputs = [torch.randn(2, 30, 4), torch.randn(4, 1, 1, 3), torch.randn(4)]
    weights = torch.randn(2, 28, 4)
    short = gradients(cpu.depthwise_convolution, inputs, weights)
    monkeypatch.setattr(cpu, "MAX_FRAMES", 10)
    for found, expected in zip(
        gradients(cpu.depthwise_convolution, inputs, weights), short, strict=True
    ):
        assert torch.allclose(found, expected, **CLOSE)


def test_gradients_of_the_convolution_agree_with_finite_differences():
    torch.manual_seed(0)
    shapes = ((2, 8, 3), (3, 1, 1, 3), (3,))
    inputs = [torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(cpu.depthwise_convolution, inputs)


def test_gradients_of_the_convolution_follow_the_layout_and_the_values_of_its_inputs():
    torch.manual_seed(0)
    inputs = [torch.randn(24, 2, 6).transpose(0, 1), torch.randn(6, 1, 1, 5), torch.randn(6)]
    weights = torch.randn(6, 20, 2).permute(2, 1, 0)  # not contiguous, nor is the gradient
    dense = [x.contiguous() for x in inputs]
    for found, expected in zip(
        gradients(cpu.depthwise_convolution, inputs, weights),
        gradients(cpu.depthwise_convolution, dense, weights.contiguous()),
        strict=True,
    ):
        assert torch.allclose(found, expected, **CLOSE)
    x, weight, bias = (v.clone().requires_grad_() for v in dense)
    y = cpu.depthwise_convolution(x, weight, bias)
    with torch.no_grad():
        weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_autocast_gives_half_precision_close_to_full():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 24, 6), torch.randn(6, 1, 1, 5), torch.randn(6)]
    weights = torch.randn(2, 20, 6)
    full = gradients(cpu.depthwise_convolution, inputs, weights)

    def half(*values):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return cpu.depthwise_convolution(*values)

    found = gradients(half, inputs, weights)
    assert found[0].dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 for gradient in found[1:])
    for ours, expected in zip(found, full, strict=True):
        assert float((ours.float() - expected).norm() / expected.norm()) < 0.02


def test_attention_under_autocast_is_close_to_full_precision():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 2, 12, 8) for _ in range(3)]
    mask = torch.ones(1, 1, 12, 12, dtype=torch.bool).tril()
    weights = torch.randn(2, 2, 12, 8)
    full = gradients(lambda q, k, v: cpu.attention(q, k, v, mask, 0.0), inputs, weights)

    def half(query, key, value):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return cpu.attention(query, key, value, mask, 0.0)

    for ours, expected in zip(gradients(half, inputs, weights), full, strict=True):
        assert float((ours.float() - expected).norm() / expected.norm()) < 0.03


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.99])
def test_dropout_drops_the_share_it_says_and_scales_the_rest(probability):
    torch.manual_seed(0)
    share = round(256 * probability) / 256
    dropped = cpu.random_bytes_dropout(torch.ones(8, 50_001), probability)
    assert (dropped == 0).float().mean() == pytest.approx(share, abs=0.003)
    for place in range(8):  # every byte of the random words is as random as the others
        zeros = (dropped.flatten()[place::8] == 0).float().mean()
        assert zeros == pytest.approx(share, abs=0.008)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / (1 - share)])


def test_dropout_gives_gradient_only_to_what_it_kept():
    x = torch.ones(1000, requires_grad=True)
    dropped = cpu.random_bytes_dropout(x, 0.25)
    dropped.sum().backward()
    torch.testing.assert_close(x.grad, dropped.detach())


def test_dropout_repeats_with_the_seed_and_is_absent_in_evaluation():
    layer, x = cpu.Dropout(0.3), torch.randn(4, 7, 5)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(layer(x))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert layer.eval()(x) is x
