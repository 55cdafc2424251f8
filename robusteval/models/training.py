"""Training of the small bundled networks: standard, or adversarial with PGD (Madry et al. 2018, arXiv 1706.06083)."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robusteval.models import mnist_cnn


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained. ``eps`` is the Linf radius on images in [0, 1]; 0 means standard training.

    The radius grows linearly over the first ``warm_up`` epochs: at full radius from the start, a fresh network tends to
    settle on the same answer for every image.
    """

    eps: float = 0.0
    steps: int = 7
    epochs: int = 40
    warm_up: int = 10
    batch: int = 50
    rate: float = 1e-3


RECIPES = {"mnist_cnn": Recipe(), "mnist_cnn_at": Recipe(eps=0.3)}


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch came to: its number from 1, the mean training loss (nats) and the seconds since the start."""

    number: int
    loss: float
    seconds: float


def linf_pgd(
    network: nn.Module, images: Tensor, labels: Tensor, *, eps: float, steps: int, step: float, random: torch.Generator
) -> Tensor:
    """Return images moved ``steps`` times by ``step`` along the sign of the loss's gradient, within Linf ``eps``.

    From a uniformly random start in the ball. Gradients reach the images only, never the weights.
    """
    lo, hi = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    points = lo + (hi - lo) * torch.rand(images.shape, generator=random).to(images.device)
    for _ in range(steps):
        points.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(points), labels), points)
        points = (points.detach() + step * gradient.sign()).clamp(lo, hi)
    return points


def fit(
    recipe: Recipe,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int,
    after: Callable[[Epoch], None] = lambda _: None,
    build: Callable[[], nn.Module] = mnist_cnn.network,
) -> nn.Module:
    """Train a fresh network on images [n, 1, 28, 28] in [0, 1] and labels [n], and return it in eval mode.

    The result follows from the arguments alone on one type of CPU with one thread. The learning rate falls to zero
    along half a cosine. ``after`` is called at the end of each epoch, ``build`` for the fresh network.
    """
    started = time.monotonic()
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.rate)
    batches = -(-len(images) // recipe.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs * batches)
    for epoch in range(recipe.epochs):
        eps = recipe.eps * min(1.0, (epoch + 1) / max(1, recipe.warm_up))
        total = 0.0
        for chosen in torch.randperm(len(images), generator=random).split(recipe.batch):
            x, y = images[chosen], labels[chosen]
            if eps > 0:
                step = 2.5 * eps / recipe.steps
                x = linf_pgd(network, x, y, eps=eps, steps=recipe.steps, step=step, random=random)
            loss = F.cross_entropy(network(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(x)
        after(Epoch(number=epoch + 1, loss=total / len(images), seconds=time.monotonic() - started))
    return network.eval()


def accuracy(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int,
    eps: float = 0.0,
    steps: int = 40,
) -> float:
    """Return the share of images that ``network`` gets right: clean, or after PGD within Linf ``eps``.

    One random start, steps of eps / 12, and the last point counts: a quick look after training, not an evaluation.
    """
    random = torch.Generator().manual_seed(seed)
    right = 0
    for x, y in zip(images.split(256), labels.split(256), strict=True):
        points = linf_pgd(network, x, y, eps=eps, steps=steps, step=eps / 12, random=random) if eps > 0 else x
        with torch.inference_mode():
            right += int((network(points).argmax(1) == y).sum())
    return right / len(images)
