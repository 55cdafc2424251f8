"""Training: the loss falls, a seed gives the same bits, and the attack within it reaches a known optimum."""

import pytest
import torch
from torch import nn

from robusteval.models.training import Recipe, accuracy, fit, linf_pgd


@pytest.fixture(scope="module")
def bars() -> tuple[torch.Tensor, torch.Tensor]:
    """300 images of a bright bar whose place is the class, with noise."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 10
    images = 0.3 * torch.rand(300, 1, 28, 28, generator=random)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 2 * label + 4 : 2 * label + 6] = 0.9
    return images, labels


def test_the_loss_falls_and_the_network_learns(bars):
    epochs = []
    network = fit(Recipe(epochs=6), *bars, seed=0, after=epochs.append)
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].loss < 0.5 * epochs[0].loss
    assert accuracy(network, *bars, seed=0) > 0.9
    assert not network.training


@pytest.mark.slow
def test_adversarial_training_makes_robust(bars):
    standard = fit(Recipe(epochs=20), *bars, seed=0)
    adversarial = fit(Recipe(eps=0.2, steps=3, epochs=20, warm_up=5), *bars, seed=0)
    robust = [accuracy(network, *bars, seed=0, eps=0.2, steps=10) for network in (standard, adversarial)]
    assert robust[0] < 0.93 < 0.97 < robust[1]


def test_a_seed_gives_the_same_bits_whatever_was_drawn_before(bars):
    recipe = Recipe(eps=0.1, steps=2, epochs=1)
    torch.manual_seed(5)
    first = fit(recipe, *bars, seed=3).state_dict()
    drawn = torch.rand(3)
    second = fit(recipe, *bars, seed=3).state_dict()
    other = fit(recipe, *bars, seed=4).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)


def test_pgd_reaches_the_optimum_of_a_linear_network():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    images, labels = torch.rand(16, 1, 28, 28), torch.arange(16) % 2
    weight = network.get_parameter("1.weight")
    away = torch.stack([(weight[1 - label] - weight[label]).sign().view(1, 28, 28) for label in labels.tolist()])
    random = torch.Generator().manual_seed(0)
    points = linf_pgd(network, images, labels, eps=0.2, steps=20, step=0.05, random=random)
    torch.testing.assert_close(points, (images + 0.2 * away).clamp(0, 1))
    assert weight.grad is None
    assert float((points - images).abs().max()) <= 0.2 + 1e-6
