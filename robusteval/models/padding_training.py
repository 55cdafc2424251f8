"""Training of the networks whose padding is a choice: small ones on MNIST, ResNet-20 on CIFAR-10 as published."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robusteval.models.training import Epoch, Recipe, linf_pgd

MNIST = Recipe(epochs=40, warm_up=0, batch=100, rate=5e-3)
MNIST_AT = Recipe(eps=0.2, steps=3, epochs=30, warm_up=8, batch=100, rate=5e-3)


@dataclass(frozen=True, kw_only=True)
class Published:
    """How Gavrikov & Keuper 2023 train (https://arxiv.org/abs/2308.06612): SGD with Nesterov momentum, the learning
    rate along half a cosine, label smoothing, random flips and no crops. With ``eps`` by FGSM from the image itself,
    and the epoch that is best under PGD is kept; theirs is chosen on test images, ours on ``held_out`` training images.
    """

    eps: float = 0.0
    epochs: int = 75
    batch: int = 256
    rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    held_out: int = 0
    steps: int = 10


CIFAR10 = Published()
CIFAR10_AT = Published(eps=8 / 255, held_out=5000)


def fit(
    recipe: Published,
    network: nn.Module,
    grey: Tensor,
    labels: Tensor,
    *,
    seed: int,
    device: str = "cpu",
    after: Callable[[Epoch], None] = lambda _: None,
) -> nn.Module:
    """Train a fresh network on images uint8 [n, 3, 32, 32] and labels [n]; return it on the CPU in eval mode.

    ``after`` is called at the end of each epoch. On the CPU with one thread the result follows from the arguments
    alone.
    """
    started, random = time.monotonic(), torch.Generator().manual_seed(seed)
    network = network.to(device).train()
    order = torch.randperm(len(grey), generator=random)
    chosen, kept_back = order[recipe.held_out :], order[: recipe.held_out]
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=recipe.rate,
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    batches = -(-len(chosen) // recipe.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs * batches)
    best, kept = -1, network
    for epoch in range(recipe.epochs):
        total = 0.0
        for rows in chosen[torch.randperm(len(chosen), generator=random)].split(recipe.batch):
            x, y = _images(grey[rows], random).to(device), labels[rows].to(device)
            if recipe.eps > 0:
                x = fgsm(network, x, y, recipe.eps)
            loss = F.cross_entropy(network(x), y, label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(rows)
        if len(kept_back):
            right = surviving(recipe, network, grey[kept_back], labels[kept_back], device=device, seed=seed)
            if right > best:
                best, kept = right, copy.deepcopy(network)
        after(Epoch(number=epoch + 1, loss=total / len(chosen), seconds=time.monotonic() - started))
    return (kept if len(kept_back) else network).to("cpu").eval()


def fgsm(network: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    """Return images moved by ``eps`` along the sign of the loss's gradient, in [0, 1]; in eval mode meanwhile."""
    network.eval()
    points = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(points), labels), points)
    network.train()
    return (images + eps * gradient.sign()).clamp(0, 1)


def surviving(recipe: Published, network: nn.Module, grey: Tensor, labels: Tensor, *, device: str, seed: int) -> int:
    """Return how many images uint8 [n, ...] are right after PGD of ``recipe.steps`` steps of eps / 4."""
    random = torch.Generator().manual_seed(seed)
    network.eval()
    right = 0
    for part, y in zip(grey.split(recipe.batch), labels.split(recipe.batch), strict=True):
        x, y = part.to(device, torch.float32) / 255, y.to(device)
        points = linf_pgd(network, x, y, eps=recipe.eps, steps=recipe.steps, step=recipe.eps / 4, random=random)
        with torch.inference_mode():
            right += int((network(points).argmax(1) == y).sum())
    network.train()
    return right


def _images(grey: Tensor, random: torch.Generator) -> Tensor:
    """Return images in [0, 1], each mirrored or not."""
    images = grey.to(torch.float32).div_(255)
    mirrored = torch.rand(len(images), generator=random) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)
