"""Brightness: the same added to every pixel."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
from torch import Tensor

from robusteval.attacks.base import rows
from robusteval.attacks.domains import Interval
from robusteval.attacks.one_parameter import OneParameter

_Shift = Annotated[float, annotated_types.Interval(ge=-1, le=1)]


@dataclass(frozen=True, kw_only=True)
class Brightness(OneParameter):
    """x + b within [0, 1], b from ``low`` to ``high``."""

    shift: _Shift | None = None
    low: _Shift = -0.5
    high: _Shift = 0.5

    method: ClassVar[str] = "brightness"
    named: ClassVar[str] = "shift"
    due: ClassVar[str] = "a shift in [-1, 1]"

    def domain(self) -> Interval:
        return Interval(self.low, self.high)

    def apply(self, x: Tensor, parameter: Tensor) -> Tensor:
        return (x + rows(parameter, x)).clamp(0, 1)
