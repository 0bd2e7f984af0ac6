import math

import pytest
import torch
from torch import nn
from victims import linear_victim, own_images

from edgeprune_benchmarks.robustness.attacks.gradient import cross_entropy
from edgeprune_benchmarks.robustness.pictures.landscape import (
    distortion,
    filter_normalized,
    largest_curvature,
    loss_along,
    loss_over,
    smooth_gradients,
)


class Logistic(nn.Module):
    """Two classes by one direction a: the loss, its gradient and its Hessian are known."""

    def __init__(self, norm=2.0):
        super().__init__()
        a = torch.randn(12, generator=torch.Generator().manual_seed(0))
        self.register_buffer("a", norm * a / a.norm())

    def forward(self, images):
        score = images.flatten(1) @ self.a
        return torch.stack([score, torch.zeros_like(score)], 1)


@pytest.fixture
def logistic():
    victim = Logistic()
    images = torch.rand((6, 3, 2, 2), generator=torch.Generator().manual_seed(1))
    return victim, images, torch.zeros(6, dtype=torch.int64)


def test_directions_have_the_norms_of_the_filters():
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 2))
    direction = filter_normalized(model, 3)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            expected = weight.detach().flatten(1).norm(dim=1)
            assert torch.allclose(direction[name].flatten(1).norm(dim=1), expected, rtol=1e-5)
        else:
            assert not direction[name].any()
    assert torch.equal(direction["0.weight"], filter_normalized(model, 3)["0.weight"])
    assert not torch.equal(direction["0.weight"], filter_normalized(model, 4)["0.weight"])


def test_the_loss_along_a_direction():
    victim = linear_victim()
    images, labels = own_images(victim, 20)
    direction = filter_normalized(victim, 0)
    before = {name: weight.clone() for name, weight in victim.state_dict().items()}
    losses = loss_along(victim, images, labels, direction, (-0.5, 0.0, 0.5), batch_size=7)
    assert losses[1] == pytest.approx(float(cross_entropy(victim(images), labels).mean()), rel=1e-5)
    assert all(torch.equal(weight, before[name]) for name, weight in victim.state_dict().items())
    moved = linear_victim()
    with torch.no_grad():
        moved.model.head.weight += 0.5 * direction["model.head.weight"]
    assert losses[2] == pytest.approx(float(cross_entropy(moved(images), labels).mean()), rel=1e-5)


def test_the_loss_over_two_directions_has_the_lines_as_its_axes():
    victim = linear_victim()
    images, labels = own_images(victim, 20)
    pair = filter_normalized(victim, 0), filter_normalized(victim, 1)
    steps = (-0.4, 0.0, 0.4)
    surface = loss_over(victim, images, labels, pair, steps)
    assert surface.shape == (3, 3)
    assert surface[:, 1] == pytest.approx(loss_along(victim, images, labels, pair[0], steps))
    assert surface[1] == pytest.approx(loss_along(victim, images, labels, pair[1], steps))


def test_curvature_is_the_hessians_largest_eigenvalue(logistic):
    victim, images, labels = logistic
    wrong = victim(images).softmax(1)[:, 1]
    start = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    found = largest_curvature(victim, images, labels, 10, start)
    assert torch.allclose(found, wrong * (1 - wrong) * 4, rtol=1e-4)


def test_the_distortion_rate_and_its_terms(logistic):
    victim, images, labels = logistic
    found = distortion(victim, images, labels, 0.1)
    score = images.flatten(1) @ victim.a
    # Uphill is straight against a.
    loss = lambda s: torch.log1p(torch.exp(-s))  # noqa: E731
    assert found.edr == pytest.approx(float((loss(score - 0.2) - loss(score)).mean()), rel=1e-3)
    wrong = victim(images).softmax(1)[:, 1]
    assert found.gradient == pytest.approx(float((wrong * 2).mean()) * 0.1, rel=1e-4)
    assert found.curvature == pytest.approx(float((wrong * (1 - wrong) * 4).mean()) / 2 * 0.01, rel=1e-3)
    assert found.random < found.edr <= found.gradient + found.curvature + 1e-6


def test_a_network_without_slope_has_no_distortion():
    class Flat(nn.Module):
        def forward(self, images):
            return 0 * images.flatten(1)[:, :4] ** 2

    found = distortion(Flat(), torch.rand(2, 3, 4, 4), torch.tensor([0, 1]), 0.5)
    assert (found.edr, found.random, found.gradient, found.curvature) == (0, 0, 0, 0)
    assert not math.isnan(found.edr)


@pytest.mark.slow
def test_smoothgrad_of_a_linear_network_is_its_weights():
    victim = linear_victim()
    images, labels = own_images(victim, 3)
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    maps = smooth_gradients(victim, images, labels, samples=4)
    assert torch.equal(torch.rand(2), expected)
    norm = victim.model.norm
    scale = 1 / (norm.running_var + norm.eps).sqrt() / victim.std.flatten()
    weights = victim.model.head.weight[labels].view(3, 3, 8, 8) * scale.view(1, 3, 1, 1)
    assert torch.allclose(maps, weights.abs().mean(1), rtol=1e-4)
