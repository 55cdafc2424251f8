"""Gamma correction."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt
from torch import Tensor

from robusteval.attacks.base import rows
from robusteval.attacks.domains import Interval
from robusteval.attacks.one_parameter import OneParameter


@dataclass(frozen=True, kw_only=True)
class Gamma(OneParameter):
    """x to the power of gamma: darker above 1, brighter below. From ``low`` to ``high``, evenly in the logarithm."""

    gamma: Annotated[float, Gt(0)] | None = None
    low: Annotated[float, Gt(0)] = 0.25
    high: Annotated[float, Gt(0)] = 4.0

    method: ClassVar[str] = "gamma"
    named: ClassVar[str] = "gamma"
    due: ClassVar[str] = "a gamma above 0"

    def domain(self) -> Interval:
        return Interval(self.low, self.high, log=True)

    def apply(self, x: Tensor, parameter: Tensor) -> Tensor:
        # Not by **: its last bit depends on where in the tensor a number stands. In float64 1 is the identity.
        return (x.double().log() * rows(parameter.double(), x)).exp().to(x).clamp(0, 1)
