"""Two models as one: the logarithm of a weighted mean of their softmax."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from annotated_types import Gt, Lt
from torch import Tensor, logaddexp, nn

from robusteval.classifier import Classifier
from robusteval.models.transforms.base import Facts, Material, Transform, refuse


@dataclass(frozen=True, kw_only=True)
class Mix(Transform):
    """log[(1 - weight) softmax(scale z) + weight softmax(other_scale z')] with the logits z' of another model
    (Bai et al. 2023, https://arxiv.org/abs/2301.12554, with one weight for all images).

    ``model`` is a name in conf/model, and ``options`` are set in it, as in ``model=timm`` with ``options={name: ...}``.
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weight: Annotated[float, Gt(0), Lt(1)] = 0.5
    scale: Annotated[float, Gt(0)] = 1.0
    other_scale: Annotated[float, Gt(0)] = 1.0

    method: ClassVar[str] = "mix"

    def __post_init__(self) -> None:
        if self.model == "???":  # what the configuration file has where the user must choose
            raise ValueError("mix needs transform.mix.model=NAME, such as mnist_cnn_at")

    def label(self) -> str:
        name = self.options.get("name", self.model)
        scales = "" if self.scale == self.other_scale == 1 else f", scales {self.scale:g} and {self.other_scale:g}"
        return f"mix({1 - self.weight:g} : {self.weight:g} {name}{scales})"

    def other(self) -> tuple[str, Mapping[str, Any]]:
        return self.model, self.options

    def apply(self, classifier: Classifier, material: Material) -> tuple[nn.Module, Facts]:
        other = material.model(self.model, self.options)
        for what in ("classes", "input_size", "preprocessing", "class_names"):
            one, two = getattr(classifier, what), getattr(other, what)
            if one != two and None not in (one, two):
                raise refuse(
                    "mix",
                    f"{classifier.name} and {other.name} differ in their {what.replace('_', ' ')}"
                    + ("" if what == "class_names" else f" ({one} and {two})")
                    + "; only models of the same images and classes mix",
                )
        network = Mixed(classifier.module, other.module, self.weight, self.scale, self.other_scale)
        return network, {"other": other.name, "other_source": other.source, "other_digest": other.digest}


class Mixed(nn.Module):
    """The logarithm of the weighted mean of two networks' softmax."""

    def __init__(self, one: nn.Module, other: nn.Module, weight: float, scale: float, other_scale: float) -> None:
        super().__init__()
        self.one, self.other = one, other
        self.weight, self.scale, self.other_scale = weight, scale, other_scale

    def forward(self, images: Tensor) -> Tensor:
        first = (self.scale * self.one(images)).log_softmax(1) + math.log1p(-self.weight)
        second = (self.other_scale * self.other(images)).log_softmax(1) + math.log(self.weight)
        return logaddexp(first, second)
