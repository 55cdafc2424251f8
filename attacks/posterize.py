"""Posterization: fewer grey values."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval as Between
from torch import Tensor

from robusteval.attacks.base import rows
from robusteval.attacks.domains import Finite
from robusteval.attacks.one_parameter import OneParameter


def posterize(x: Tensor, bits: Tensor) -> Tensor:
    """Return x [n, ...] as an 8-bit picture of which each row keeps the upper ``bits`` [n] of 1 to 8; 8 keeps all."""
    step = rows(2 ** (8 - bits), x)
    return ((x * 255).round() / step).floor() * step / 255


@dataclass(frozen=True, kw_only=True)
class Posterize(OneParameter):
    """Keeps the upper ``bits`` of every 8-bit value, 1 to 8, as Pillow's ImageOps.posterize does; 8 is the picture."""

    bits: Annotated[int, Between(ge=1, le=8)] | None = None

    method: ClassVar[str] = "posterize"
    named: ClassVar[str] = "bits"
    due: ClassVar[str] = "a number of bits from 1 to 8"

    def domain(self) -> Finite:
        return Finite(tuple(range(1, 9)))

    def apply(self, x: Tensor, parameter: Tensor) -> Tensor:
        return posterize(x, parameter)
