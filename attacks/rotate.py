"""Rotation about the middle of the image."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import annotated_types
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from robusteval.attacks.base import rows
from robusteval.attacks.domains import Interval
from robusteval.attacks.one_parameter import OneParameter

_Angle = Annotated[float, annotated_types.Interval(ge=-180, le=180)]
Fill = Literal["zeros", "border", "reflection"]


def rotated(x: Tensor, angle: Tensor, fill: Fill = "zeros") -> Tensor:
    """Return images [n, C, H, W] turned counter-clockwise by each row's ``angle`` [n] in degrees, bilinearly.

    ``fill`` says what comes from beyond the edge: black, the nearest pixel, or the mirrored image.
    """
    height, width = x.shape[-2:]
    radians = torch.deg2rad(angle.double())  # float64, whose last bit is lost below: it may depend on the place
    cos, sin = (rows(part.to(x), x[:, 0]) for part in (radians.cos(), radians.sin()))
    down = torch.arange(height, device=x.device).to(x)[:, None] - (height - 1) / 2
    across = torch.arange(width, device=x.device).to(x) - (width - 1) / 2
    at = torch.stack([2 * (cos * across - sin * down) / width, 2 * (sin * across + cos * down) / height], -1)
    turned = grid_sample(x, at, mode="bilinear", padding_mode=fill, align_corners=False)
    return torch.where(rows(angle, x) == 0, x, turned.clamp(0, 1))


@dataclass(frozen=True, kw_only=True)
class Rotate(OneParameter):
    """Turns the image counter-clockwise by ``low`` to ``high`` degrees, with bilinear interpolation.

    ``fill`` is what comes from beyond the edge: zeros, the border's pixels, or the reflection.
    """

    angle: _Angle | None = None
    low: _Angle = -30.0
    high: _Angle = 30.0
    fill: Fill = "zeros"

    method: ClassVar[str] = "rotate"
    named: ClassVar[str] = "angle"
    due: ClassVar[str] = "an angle in [-180, 180] degrees"

    def domain(self) -> Interval:
        return Interval(self.low, self.high)

    def apply(self, x: Tensor, parameter: Tensor) -> Tensor:
        return rotated(x, parameter, self.fill)
