"""Adversarial solarization: inverting every pixel above a threshold."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import annotated_types
import torch
from torch import Tensor

from robusteval.attacks.base import rows
from robusteval.attacks.domains import Finite, Interval
from robusteval.attacks.one_parameter import OneParameter


def solarize(x: Tensor, threshold: Tensor, direction: str = "above") -> Tensor:
    """Return x [n, ...] in [0, 1] with the values at or above each row's threshold [n] inverted.

    ``above``: x where x < a, else 1 - x (Gavrikov & Keuper 2023, https://arxiv.org/abs/2308.12661). At a = 1 pure white
    still turns black; a > 1 is the identity. ``below`` (ours) inverts the values under the threshold instead.
    """
    invert = x >= rows(threshold, x)
    return torch.where(invert if direction == "above" else ~invert, 1 - x, x)


@dataclass(frozen=True, kw_only=True)
class Solarize(OneParameter):
    """Solarization as an attack with one number, without gradients (Gavrikov & Keuper 2023,
    https://arxiv.org/abs/2308.12661).

    ``random``      RandSol: up to ``iterations`` thresholds uniform on [0, 1) for each image, until one fools.
    ``universal``   one threshold for all images: the worst of 0, 0.01, ..., 1.00.
    ``fixed``       the given ``threshold`` for all images.
    ``exhaustive``  257 thresholds between the grey values, (k - 1/2)/255 for k = 0..256: the worst case of each 8-bit
    image. The published top-5 variant is ``threat.goal=top5``.
    """

    threshold: Annotated[float, annotated_types.Interval(ge=0, le=2)] | None = None
    direction: Literal["above", "below"] = "above"

    method: ClassVar[str] = "solarize"
    named: ClassVar[str] = "threshold"
    due: ClassVar[str] = "a threshold in [0, 2]"
    of_8_bit: ClassVar[bool] = True

    def domain(self) -> Finite | Interval:
        if self.mode == "exhaustive":
            return Finite(tuple(((torch.arange(257, dtype=torch.float64) - 0.5) / 255).tolist()))
        return Interval(0.0, 1.0)

    def grid(self) -> Tensor:
        return self.domain().grid() if self.mode == "exhaustive" else torch.arange(101, dtype=torch.float64) / 100

    def drawn(self, uniform: Tensor) -> Tensor:
        return uniform

    def chances(self) -> Tensor | None:
        """A threshold in ((k-1)/255, k/255] inverts the grey values k and above: the ends of the grid are never met."""
        if (chances := super().chances()) is None:
            return None
        chances[1:-1] = 1 / 255
        chances[0] = chances[-1] = 0
        return chances

    def apply(self, x: Tensor, parameter: Tensor) -> Tensor:
        return solarize(x, parameter, self.direction)
