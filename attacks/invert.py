"""The photographic negative."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from robusteval.attacks.base import rows
from robusteval.attacks.domains import Finite
from robusteval.attacks.one_parameter import OneParameter


@dataclass(frozen=True, kw_only=True)
class Invert(OneParameter):
    """The negative, 1 - x, where the number is 1, and the image itself where it is 0: solarization at threshold 0."""

    inverted: Literal[0, 1] | None = None

    method: ClassVar[str] = "invert"
    named: ClassVar[str] = "inverted"
    due: ClassVar[str] = "inverted=1 (or 0, the image itself)"

    def domain(self) -> Finite:
        return Finite((0, 1))

    def apply(self, x: Tensor, parameter: Tensor) -> Tensor:
        return torch.where(rows(parameter, x) > 0.5, 1 - x, x)
