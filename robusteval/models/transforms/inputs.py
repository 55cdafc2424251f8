"""Steps that an image in [0, 1] goes through before the network, its normalisation included, sees it."""

from dataclasses import dataclass
from io import BytesIO
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from PIL import Image
from torch import Tensor, nn

from robusteval.classifier import Classifier, Prepared
from robusteval.models.transforms.base import Facts, Material, Transform, refuse


class Step(nn.Module):
    """What an image in [0, 1] goes through; [n, C, H, W] to the same."""


class _Through(torch.autograd.Function):
    """A step without a useful derivative: backwards either nothing, or straight through (as if it were not there)."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, came: Tensor, straight_through: bool) -> Tensor:
        ctx.straight_through = straight_through
        return came

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        return (gradient if ctx.straight_through else torch.zeros_like(gradient)), None, None


@dataclass(frozen=True, kw_only=True)
class Quantise(Transform):
    """Round to the nearest of 2^bits equidistant grey values from 0 to 1, ties to even.

    Its derivative is zero, which blinds attacks by gradients and is told by a check; ``straight_through`` gives them
    the identity instead (BPDA, Athalye et al. 2018, https://arxiv.org/abs/1802.00420).
    """

    bits: Annotated[int, Ge(1), Le(16)] = 8
    straight_through: bool = False

    method: ClassVar[str] = "quantise"

    def label(self) -> str:
        return f"quantise({self.bits} bit{'s' * (self.bits > 1)}{', straight-through' * self.straight_through})"

    def apply(self, classifier: Classifier, material: Material) -> tuple[nn.Module, Facts]:
        return _with(classifier.module, Quantised(2**self.bits, self.straight_through)), {"levels": 2**self.bits}


class Quantised(Step):
    """Rounds images to so many levels."""

    def __init__(self, levels: int, straight_through: bool) -> None:
        super().__init__()
        self.levels, self.straight_through = levels, straight_through

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            came = (images * (self.levels - 1)).round() / (self.levels - 1)
        return _Through.apply(images, came, self.straight_through)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True, kw_only=True)
class Jpeg(Transform):
    """Encode as JPEG of ``quality`` and decode again (Pillow, 4:2:0): images of 1 or 3 channels, 8 bits.

    It has no derivative: attacks by gradients see zeros, which a check tells, or with ``straight_through`` the identity
    (BPDA, Athalye et al. 2018, https://arxiv.org/abs/1802.00420).
    """

    quality: Annotated[int, Ge(1), Le(100)] = 75
    straight_through: bool = False

    method: ClassVar[str] = "jpeg"

    def label(self) -> str:
        return f"jpeg({self.quality}{', straight-through' * self.straight_through})"

    def apply(self, classifier: Classifier, material: Material) -> tuple[nn.Module, Facts]:
        channels = material.example.shape[1]
        if channels not in (1, 3):
            raise refuse("jpeg", f"JPEG has 1 or 3 channels, and the images have {channels}; use another transform")
        return _with(classifier.module, Compressed(self.quality, self.straight_through)), {}


class Compressed(Step):
    """Sends images through JPEG, one after the other, on the CPU, so that every device gets the same."""

    def __init__(self, quality: int, straight_through: bool) -> None:
        super().__init__()
        self.quality, self.straight_through = quality, straight_through

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            grey = (images.detach().float() * 255).round().clamp(0, 255).to(torch.uint8).cpu()
            came = torch.from_numpy(np.stack([self._through(image) for image in grey.numpy()]))
            came = came.to(images.device, images.dtype) / 255
        return _Through.apply(images, came, self.straight_through)  # pyright: ignore[reportReturnType]

    def _through(self, image: np.ndarray) -> np.ndarray:
        """Return an image uint8 [C, H, W] after JPEG."""
        picture = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
        file = BytesIO()
        picture.save(file, "JPEG", quality=self.quality, subsampling="4:2:0")
        decoded = np.asarray(Image.open(file))
        return decoded[None] if decoded.ndim == 2 else decoded.transpose(2, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Smoothing(Transform):
    """Add Gaussian noise of standard deviation ``sigma`` to images in [0, 1], not clamped, drawn anew in every pass.

    The noisy network of randomised smoothing (Cohen et al. 2019, https://arxiv.org/abs/1902.02918): it is randomised,
    so an image is judged by the mean softmax of ``engine.draws`` passes. No certificate is made.
    """

    sigma: Annotated[float, Gt(0)] = 0.25

    method: ClassVar[str] = "smoothing"
    randomised: ClassVar[bool] = True

    def label(self) -> str:
        return f"smoothing({self.sigma:g})"

    def apply(self, classifier: Classifier, material: Material) -> tuple[nn.Module, Facts]:
        return _with(classifier.module, Noisy(self.sigma)), {}


class Noisy(Step):
    """Adds noise from torch's generator, which the engine seeds for each pass."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, images: Tensor) -> Tensor:
        return images + self.sigma * torch.randn_like(images)


def _with(network: nn.Module, step: nn.Module) -> nn.Module:
    """Put a step behind those that images already go through, which is the order in which they are listed."""
    if isinstance(network, Prepared):
        return Prepared([*network.steps, step], network.network)
    return Prepared([step], network)
