"""Contrast, about the image's own mean."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt
from torch import Tensor

from robusteval.attacks.base import rows
from robusteval.attacks.domains import Interval
from robusteval.attacks.geometry import total
from robusteval.attacks.one_parameter import OneParameter

_LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue, as torchvision weighs them


def grey(x: Tensor) -> Tensor:
    """Return the brightness [n, 1, H, W] of images [n, C, H, W], of three channels weighed as the eye does."""
    if x.shape[1] != len(_LUMA):
        return x[:, :1]
    red, green, blue = x.split(1, 1)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


@dataclass(frozen=True, kw_only=True)
class Contrast(OneParameter):
    """m + f (x - m) within [0, 1], m the mean brightness of the image (torchvision's adjust_contrast).

    The factor f is from ``low`` to ``high``, evenly in the logarithm.
    """

    factor: Annotated[float, Ge(0)] | None = None
    low: Annotated[float, Gt(0)] = 0.1
    high: Annotated[float, Gt(0)] = 10.0

    method: ClassVar[str] = "contrast"
    named: ClassVar[str] = "factor"
    due: ClassVar[str] = "a factor of at least 0"

    def domain(self) -> Interval:
        return Interval(self.low, self.high, log=True)

    def apply(self, x: Tensor, parameter: Tensor) -> Tensor:
        mean = rows(total(grey(x)) / x[0, 0].numel(), x)
        factor = rows(parameter, x)
        return (factor * x + (1 - factor) * mean).clamp(0, 1)
