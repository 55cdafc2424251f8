"""Models whose robustness is known in closed form: what an attack must find, neither more nor less.

Used by ``robusteval selftest`` and by the tests.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.special import betainc
from torch import Tensor, nn

from robusteval import randomness

# Logits of classes that no perturbation reaches; near enough for the ratios of DLR to stay in range.
_FAR = -50.0


class Linear(nn.Module):
    """Logits (m/2, -m/2, far, ..., far) of the margin m = <w, x> + b: images [n, *shape] to logits [n, classes]."""

    weight: Tensor

    def __init__(self, weight: Tensor, bias: float, classes: int = 2) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.bias, self.classes = bias, classes

    def forward(self, images: Tensor) -> Tensor:
        half = (images.flatten(1) @ self.weight.flatten() + self.bias) / 2
        far = half.new_full((len(half), self.classes - 2), _FAR)
        return torch.cat([half[:, None], -half[:, None], far], 1)


@dataclass(frozen=True, kw_only=True)
class LinearProblem:
    """A linear model and images [n, *shape], labels [n], that are broken at exactly ``radius`` in the norm."""

    module: Linear
    images: Tensor
    labels: Tensor
    radius: float


def linear_problem(
    norm: Literal["linf", "l2"],
    shape: tuple[int, int, int],
    *,
    classes: int = 2,
    n: int = 8,
    radius: float = 0.1,
    seed: int = 0,
) -> LinearProblem:
    """Return a problem of known optimum: the margin over the dual norm of w is ``radius`` for every image.

    Linf: margin / ||w||_1; L2: margin / ||w||_2 (Hoelder's inequality, which is tight). Labels alternate between the
    first two classes, and no image comes nearer to the box than the radius: the box is inactive. Raises ValueError
    where there is no room for that.
    """
    numbers = randomness.generator(seed, math.prod(shape), f"robusteval.linear.{norm}")
    w = numbers.standard_normal(shape) + 0.1
    w /= np.linalg.norm(w)  # so that cross-entropy is far from saturated
    dual = np.abs(w).sum() if norm == "linf" else 1.0
    x = 0.5 + numbers.uniform(-0.15, 0.15, (n, *shape))
    labels = np.arange(n) % 2
    margin = np.where(labels == 0, 1, -1) * radius * dual
    bias = -0.5 * w.sum()
    # Moved along the sign of w, the shortest way in Linf, onto the wanted margin.
    lacking = margin - (x * w).reshape(n, -1).sum(1) - bias
    x += lacking.reshape(n, 1, 1, 1) * np.sign(w) / np.abs(w).sum()
    if min(x.min(), 1 - x.max()) <= 1.02 * radius:
        raise ValueError(f"radius={radius} is too large for shape={shape}: the box would be active")
    module = Linear(torch.from_numpy(w).float(), float(bias), classes)
    return LinearProblem(
        module=module, images=torch.from_numpy(x).float(), labels=torch.from_numpy(labels), radius=radius
    )


class HalfSpace(nn.Module):
    """Class 0 while the first value of the image stays under ``threshold``, else class 1; logits [n, 2].

    Remembers every image that it was shown in ``seen``, so that a proof can look at what was proposed.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        gap = images.flatten(1)[:, 0] - self.threshold
        return torch.stack([-gap, gap], 1)


def cap(norm: str, height: float, dim: int) -> float:
    """Return the share of the unit ball in ``dim`` dimensions whose first coordinate exceeds ``height`` in [0, 1].

    Linf: (1 - h)/2. L2: half of I_{1-h^2}((d+1)/2, 1/2), the regularised incomplete beta function (Li 2011, Concise
    formulas for the area and volume of a hyperspherical cap). L1: (1 - h)^d / 2. Unbounded: of the box around 1/2, as
    Linf.
    """
    if norm in ("linf", "unbounded"):
        return (1 - height) / 2
    if norm == "l2":
        return float(betainc((dim + 1) / 2, 0.5, 1 - height**2)) / 2
    if norm == "l1":
        return (1 - height) ** dim / 2
    raise ValueError(f"no closed form for norm {norm!r}")


def small_convnet(classes: int = 10, channels: int = 1, seed: int = 2) -> nn.Module:
    """Return a convolutional network with random weights and BatchNorm: images [n, channels, >=8, >=8] to logits.

    Nothing about it is known in closed form; it is what brute force is compared on.
    """
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, classes),
    )
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * (0.5 if parameter.ndim > 1 else 0.1)
    return network.eval()
