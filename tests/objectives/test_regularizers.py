"""SIGReg and VICReg have their hand-computed values and push a collapsed cloud apart."""

from __future__ import annotations

import math

import pytest
import torch

from speechjepa.objectives.regularizers import sigreg, vicreg


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sigreg_of_a_large_normal_cloud_is_nearly_zero():
    cloud = torch.randn(20000, 8, generator=seeded())
    assert sigreg(cloud, generator=seeded(1)).item() < 5e-4


def test_sigreg_of_a_cloud_collapsed_to_the_origin_is_the_documented_value():
    everywhere = math.sqrt(2 * math.pi) * (1 - math.sqrt(2) + 1 / math.sqrt(3))
    assert everywhere == pytest.approx(0.409, abs=5e-4)
    # What lies beyond the highest frequency, 3: exp(-t^2 / 2), and its powers, in both tails.
    tails = [math.sqrt(2 * math.pi / n) * math.erfc(3 * math.sqrt(n / 2)) for n in (1, 2, 3)]
    expected = everywhere - (tails[0] - 2 * tails[1] + tails[2])
    assert expected == pytest.approx(0.402, abs=5e-4)
    found = sigreg(torch.zeros(50, 8)).item()
    assert found == pytest.approx(expected, rel=5e-3)
    assert round(found, 1) == 0.4
    elsewhere = sigreg(torch.full((50, 8), 3.0)).item()
    assert elsewhere > 2 * found


def test_sigreg_of_two_points_on_a_line_is_the_integral():
    # One dimension: every direction is +-1, and phi(t) = cos(t) for points -1 and 1.
    t = torch.linspace(0.0, 3.0, 17)
    gaussian = torch.exp(-t.square() / 2)
    values = ((t.cos() - gaussian).square() * gaussian).tolist()
    step = 3.0 / 16
    expected = 2 * step * (sum(values) - (values[0] + values[-1]) / 2)
    found = sigreg(torch.tensor([[-1.0], [1.0]]), num_slices=3)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_sigreg_does_not_grow_with_the_number_of_frames():
    cloud = torch.rand(64, 4, generator=seeded())
    once = sigreg(cloud, generator=seeded(1))
    torch.testing.assert_close(sigreg(cloud.repeat(5, 1), generator=seeded(1)), once)


def test_sigreg_draws_the_same_directions_from_the_same_seed_alone():
    cloud = torch.rand(16, 6, generator=seeded())
    first = sigreg(cloud, num_slices=4, generator=seeded(1))
    assert torch.equal(first, sigreg(cloud, num_slices=4, generator=seeded(1)))
    assert not torch.equal(first, sigreg(cloud, num_slices=4, generator=seeded(2)))


def test_following_sigreg_spreads_a_nearly_collapsed_cloud():
    cloud = (0.01 * torch.randn(256, 4, generator=seeded())).requires_grad_()
    optimizer = torch.optim.Adam([cloud], lr=0.05)
    for step in range(60):
        loss = sigreg(cloud, num_slices=32, generator=seeded(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert cloud.detach().std(dim=0).min() > 0.5


def test_the_gradient_of_sigreg_is_that_of_its_value():
    cloud = torch.randn(5, 3, dtype=torch.float32, generator=seeded()).requires_grad_()
    sigreg(cloud, num_slices=8, generator=seeded(1)).backward()
    nudge = torch.zeros(5, 3)
    nudge[2, 1] = 1e-2
    up = sigreg(cloud.detach() + nudge, num_slices=8, generator=seeded(1))
    down = sigreg(cloud.detach() - nudge, num_slices=8, generator=seeded(1))
    assert cloud.grad[2, 1].item() == pytest.approx(((up - down) / 2e-2).item(), rel=1e-2)


def test_vicreg_by_hand():
    z = torch.tensor([[0.0, 0.0], [1.0, 4.0]])
    # Variances 1/2 and 8, covariance 2: only the first dimension is too narrow.
    terms = vicreg(z, eps=0.0)
    assert terms.variance.item() == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert terms.covariance.item() == pytest.approx(2 * 2.0**2 / 2)


def test_vicreg_of_a_collapsed_cloud_is_finite_and_wide_independent_clouds_cost_nothing():
    collapsed = torch.zeros(10, 4, requires_grad=True)
    terms = vicreg(collapsed)
    terms.variance.backward()
    assert terms.variance.item() == pytest.approx(1 - 1e-2)
    assert torch.isfinite(collapsed.grad).all()
    wide = vicreg(3 * torch.eye(4)[[0, 0, 1, 1, 2, 2, 3, 3]] * torch.tensor([[1.0], [-1.0]] * 4))
    assert wide.variance.item() == 0.0
    assert wide.covariance.item() == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize(
    "regularizer",
    [
        lambda z: sigreg(z, generator=seeded(1)),
        lambda z: vicreg(z).variance,
        lambda z: vicreg(z).covariance,
    ],
    ids=["sigreg", "variance", "covariance"],
)
def test_regularizers_are_float32_under_autocast(regularizer):
    found = []
    for enabled in (False, True):
        cloud = (5 + torch.randn(300, 6, generator=seeded())).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = regularizer(cloud)
        value.backward()
        found.append((value.detach(), cloud.grad))
    assert found[1][0].dtype == torch.float32
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


def test_following_vicreg_spreads_and_decorrelates():
    base = 0.1 * torch.randn(128, 1, generator=seeded())
    cloud = (base + 0.01 * torch.randn(128, 3, generator=seeded(1))).requires_grad_()
    optimizer = torch.optim.Adam([cloud], lr=0.05)
    for _ in range(100):
        terms = vicreg(cloud)
        optimizer.zero_grad()
        (terms.variance + terms.covariance).backward()
        optimizer.step()
    correlation = torch.corrcoef(cloud.detach().T) - torch.eye(3)
    assert cloud.detach().std(dim=0).min() > 0.9
    assert correlation.abs().max() < 0.1
