"""What the number of a one-parameter attack may be: one of finitely many values, or anything in an interval."""

from dataclasses import dataclass

import torch
from torch import Tensor

POINTS = 101
"""How many values stand for an interval."""


@dataclass(frozen=True)
class Finite:
    """One of ``values``: to try them all is exhaustive."""

    values: tuple[float, ...]

    def grid(self) -> Tensor:
        return torch.tensor(self.values, dtype=torch.float64)

    def drawn(self, uniform: Tensor) -> Tensor:
        """Return a value for each uniform number in [0, 1), all equally likely."""
        at = (uniform.double() * len(self.values)).long()
        return self.grid().to(uniform.device)[at].to(uniform)


@dataclass(frozen=True)
class Interval:
    """Any number from ``low`` to ``high``, uniform or, with ``log``, its logarithm: 101 values are a grid, not all."""

    low: float
    high: float
    log: bool = False

    def grid(self) -> Tensor:
        ends = torch.tensor([self.low, self.high], dtype=torch.float64)
        low, high = (ends.log() if self.log else ends).tolist()
        points = torch.linspace(low, high, POINTS, dtype=torch.float64)
        return points.exp() if self.log else points

    def drawn(self, uniform: Tensor) -> Tensor:
        """Return a value for each uniform number in [0, 1)."""
        u = uniform.double()
        if not self.log:
            return (self.low + u * (self.high - self.low)).to(uniform)
        low, high = torch.tensor([self.low, self.high], dtype=torch.float64).log().tolist()
        return (low + u * (high - low)).exp().to(uniform)
