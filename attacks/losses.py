"""Losses to be raised: functions of logits [n, classes] that return [n]."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossName = Literal["ce", "margin", "dlr", "targeted_ce", "targeted_dlr"]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return -log softmax(z)_y."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return max_{i != y} z_i - z_y, positive once misclassified (Carlini & Wagner 2017, https://arxiv.org/abs/1608.04644)."""
    own = logits.gather(1, y[:, None])[:, 0]
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - own


def lead(logits: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """Return z_t - z_y, positive once the target is likelier than the label."""
    return logits.gather(1, t[:, None])[:, 0] - logits.gather(1, y[:, None])[:, 0]


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio, invariant to shift and scale of the logits; needs 3 classes.

    (max_{i != y} z_i - z_y) / (z_(1) - z_(3)), Croce & Hein 2020, https://arxiv.org/abs/2003.01690, equation 6.
    """
    top = logits.topk(3, 1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_cross_entropy(logits: Tensor, t: Tensor) -> Tensor:
    """Return log softmax(z)_t: rises towards the target class."""
    return -F.cross_entropy(logits, t, reduction="none")


def targeted_dlr(logits: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """Return the targeted difference of logits ratio; needs 4 classes.

    (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2), Croce & Hein 2020, https://arxiv.org/abs/2003.01690, equation 7.
    """
    top = logits.topk(4, 1).values
    return lead(logits, y, t) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)


def min_classes(name: LossName) -> int:
    """Return how many classes the loss needs."""
    return {"dlr": 3, "targeted_dlr": 4}.get(name, 2)


def targeted(name: LossName) -> bool:
    """Return whether the loss pulls towards a target class."""
    return name.startswith("targeted_")


def evaluate(name: LossName, logits: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """Return the named loss; ``t`` matters to targeted ones only."""
    match name:
        case "ce":
            return cross_entropy(logits, y)
        case "margin":
            return margin(logits, y)
        case "dlr":
            return dlr(logits, y)
        case "targeted_ce":
            return targeted_cross_entropy(logits, t)
        case "targeted_dlr":
            return targeted_dlr(logits, y, t)
