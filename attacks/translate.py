"""Translation by whole pixels, without interpolation."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import annotated_types
import torch
from torch import Tensor

from robusteval.attacks.domains import Finite
from robusteval.attacks.one_parameter import OneParameter


def rolled(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Return images [n, C, H, W] as a window moved by whole pixels [n] sees them, cyclically.

    The pixel (i, j) of the result is (i + down, j + across) of ``x``, modulo height and width.
    """
    height, width = x.shape[-2:]
    row = (torch.arange(height, device=x.device) + down.long()[:, None]) % height
    column = (torch.arange(width, device=x.device) + across.long()[:, None]) % width
    x = x.gather(2, row[:, None, :, None].expand_as(x))
    return x.gather(3, column[:, None, None, :].expand_as(x))


@dataclass(frozen=True, kw_only=True)
class Translate(OneParameter):
    """Moves the window through which the network sees the picture, by up to ``reach`` pixels down and across.

    ``edge=window`` moves the crop in the larger picture, so that new content enters (Shifman & Weiss 2024,
    https://arxiv.org/abs/2404.07153); ``cyclic`` lets what leaves one side enter the other. The number is that of the
    window, row by row from the upper left: with reach 1 from 0 to 8, 4 being the image itself. ``shift`` (down, across)
    is that of mode=fixed.
    """

    shift: tuple[int, int] | None = None
    reach: Annotated[int, annotated_types.Interval(ge=1, le=16)] = 1
    edge: Literal["cyclic", "window"] = "cyclic"

    method: ClassVar[str] = "translate"
    named: ClassVar[str] = "shift"
    due: ClassVar[str] = "a shift [down,across] within reach"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shift is not None and max(map(abs, self.shift)) > self.reach:
            raise ValueError(
                f"shift={list(self.shift)} is farther than reach={self.reach}; raise attack.reach, or shift by less"
            )

    def domain(self) -> Finite:
        return Finite(tuple(range((2 * self.reach + 1) ** 2)))

    def number(self) -> float | None:
        if self.shift is None:
            return None
        down, across = (moved + self.reach for moved in self.shift)
        return down * (2 * self.reach + 1) + across

    def identity(self) -> int | None:
        return (2 * self.reach + 1) ** 2 // 2

    def margin(self) -> int:
        return self.reach if self.edge == "window" else 0

    def unfit(self, shape: tuple[int, int, int]) -> str | None:
        if 2 * self.reach < min(shape[1:]):
            return None
        return f"reach={self.reach} moves images of {shape[1]} x {shape[2]} around themselves; move them by less"

    def apply(self, x: Tensor, parameter: Tensor) -> Tensor:
        side = 2 * self.reach + 1
        window = parameter.round().long()
        return rolled(x, window // side - self.reach, window % side - self.reach)
