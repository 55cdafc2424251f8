"""The classifier: a network together with its input contract.

Images outside are float32 in [0, 1], NCHW. Normalisation lives inside, so that attacks, datasets and metrics
never see normalised pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a picture file becomes an input: resize the shorter side (px), then crop the centre (height, width).

    ``resize`` of two numbers is the (height, width) that the picture is distorted to. ``None`` leaves that step out; a
    dataset of ready-made arrays ignores all of it. ``around`` is how many pixels on each side of the crop are kept as
    well, for whoever moves it.
    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"
    around: int = field(default=0, repr=False)  # no part of how the model was trained, which the digest is of


class Normalised(nn.Module):
    """A network that takes images in [0, 1] and normalises them channel by channel."""

    mean: Tensor
    sd: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], sd: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("sd", torch.tensor(sd).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.sd)


class Prepared(nn.Module):
    """A network whose images in [0, 1] go through ``steps`` first, in order."""

    def __init__(self, steps: Sequence[nn.Module], network: nn.Module) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        for step in self.steps:
            images = step(images)
        return self.network(images)


class Tempered(nn.Module):
    """A network whose logits are divided by a temperature."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) / self.temperature


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The top-1 accuracy (a fraction) that a network is known to have on a dataset, and who says so."""

    accuracy: float
    dataset: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A network from images in [0, 1] (float32, [n, *input_size]) to logits [n, classes].

    ``digest`` is the sha256 of its weights and buffers; ``class_names`` are in the order of the logits, where known.
    ``input_size`` is (channels, height, width), or None where the network takes any. ``reference`` is the accuracy that
    it should reach, where anybody has said. ``transforms`` are the facts of what was done to the network before the
    evaluation, in order, and ``untransformed`` is the classifier before that.
    """

    module: nn.Module
    name: str
    source: str
    classes: int
    input_size: tuple[int, int, int] | None = None
    class_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    digest: str = ""
    reference: Reference | None = None
    transforms: tuple[Mapping[str, Any], ...] = ()
    untransformed: "Classifier | None" = None
