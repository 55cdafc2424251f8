"""Low-pass filter: only coarse structure is left."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import annotated_types
import torch
from torch import Tensor

from robusteval.attacks.domains import Interval
from robusteval.attacks.frequencies import filtered, radial_mask, square_mask
from robusteval.attacks.one_parameter import OneParameter


@dataclass(frozen=True, kw_only=True)
class LowPass(OneParameter):
    """Keeps the lowest share ``cutoff`` of the frequencies: in a square as published (Gavrikov & Keuper 2024,
    https://arxiv.org/abs/2404.01509; their cutoffs are 0.01, 0.1, 0.2, ..., 0.9, 0.99), or in a circle.
    """

    cutoff: Annotated[float, annotated_types.Interval(ge=0, le=1)] | None = None
    mask: Literal["square", "radial"] = "square"

    method: ClassVar[str] = "low_pass"
    named: ClassVar[str] = "cutoff"
    due: ClassVar[str] = "a cutoff in [0, 1]"
    high: ClassVar[bool] = False

    def domain(self) -> Interval:
        return Interval(0.0, 1.0)

    def apply(self, x: Tensor, parameter: Tensor) -> Tensor:
        mask = square_mask if self.mask == "square" else radial_mask
        height, width = x.shape[-2:]
        kept = []
        for image, number in zip(x, parameter.tolist(), strict=True):
            cutoff = round(number, 6)  # as it was written, before float32
            kept.append(filtered(image, mask(height, width, cutoff, high=self.high).to(x.device)))
        # One at a time: the bits of a transform of several depend on how many they are.
        return torch.stack(kept)
