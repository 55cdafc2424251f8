"""JPEG: what a camera or a website does to every picture."""

import io
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import annotated_types
import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

from robusteval.attacks.domains import Finite
from robusteval.attacks.one_parameter import OneParameter


def compressed(x: Tensor, quality: int, subsampling: str = "4:2:0") -> Tensor:
    """Return an image [C, H, W] in [0, 1], C 1 or 3, as JPEG of a quality from 1 to 100 gives it back."""
    pixels = (x * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    file = io.BytesIO()
    chroma = {} if len(pixels) == 1 else {"subsampling": subsampling}
    picture.save(file, format="jpeg", quality=quality, **chroma)
    with Image.open(file) as decoded:
        back = np.asarray(decoded).reshape(*pixels.shape[1:], len(pixels)).transpose(2, 0, 1)
    return torch.from_numpy(back.copy()).to(x) / 255


@dataclass(frozen=True, kw_only=True)
class Jpeg(OneParameter):
    """Compresses the picture in memory at a ``quality`` from 1 to 100, by Pillow, whose version the fingerprint holds.

    ``subsampling`` is that of the colours; 4:4:4 is none.
    """

    quality: Annotated[int, annotated_types.Interval(ge=1, le=100)] | None = None
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"

    method: ClassVar[str] = "jpeg"
    named: ClassVar[str] = "quality"
    due: ClassVar[str] = "a quality from 1 to 100"

    def domain(self) -> Finite:
        return Finite(tuple(range(1, 101)))

    def library(self) -> str | None:
        return f"pillow {Image.__version__}, libjpeg {features.version('jpg')}"  # pyright: ignore[reportAttributeAccessIssue]

    def unfit(self, shape: tuple[int, int, int]) -> str | None:
        if shape[0] in (1, 3):
            return None
        return f"images of {shape[0]} channels make no JPEG picture; 1 or 3 are due"

    def apply(self, x: Tensor, parameter: Tensor) -> Tensor:
        pairs = zip(x, parameter.round().int().tolist(), strict=True)
        return torch.stack([compressed(image, quality, self.subsampling) for image, quality in pairs])
