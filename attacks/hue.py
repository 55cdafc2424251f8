"""Hue: colours turned around the wheel."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
import torch
from torch import Tensor

from robusteval.attacks.base import rows
from robusteval.attacks.domains import Interval
from robusteval.attacks.one_parameter import OneParameter

_Turn = Annotated[float, annotated_types.Interval(ge=-0.5, le=0.5)]


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Return colour images [n, 3, H, W] with each row's hue (HSV) moved by ``turn`` [n], in turns of the wheel."""
    value, low = x.amax(1), x.amin(1)
    chroma, (red, green, blue) = value - low, x.unbind(1)
    safe = torch.where(chroma > 0, chroma, 1.0)
    from_red, from_green, from_blue = (green - blue) / safe, (blue - red) / safe + 2, (red - green) / safe + 4
    sixths = torch.where(value == red, from_red, torch.where(value == green, from_green, from_blue))
    sixths = sixths + 6 * rows(turn, sixths)
    channels = []
    for start in (5, 3, 1):
        place = (sixths + start) % 6
        channels.append(value - chroma * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.where(rows(turn, x) == 0, x, torch.stack(channels, 1).clamp(0, 1))


@dataclass(frozen=True, kw_only=True)
class Hue(OneParameter):
    """Turns the hue of every pixel by the same part of the colour wheel, from ``low`` to ``high`` turns (HSV)."""

    turn: _Turn | None = None
    low: _Turn = -0.5
    high: _Turn = 0.5

    method: ClassVar[str] = "hue"
    named: ClassVar[str] = "turn"
    due: ClassVar[str] = "a turn in [-0.5, 0.5]"

    def domain(self) -> Interval:
        return Interval(self.low, self.high)

    def unfit(self, shape: tuple[int, int, int]) -> str | None:
        if shape[0] == 3:
            return None
        return f"images of {shape[0]} channels have no hue; use images in colour, or another attack"

    def apply(self, x: Tensor, parameter: Tensor) -> Tensor:
        return turned(x, parameter)
