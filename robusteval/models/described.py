"""Options that describe a network which comes without a description: shared by python and checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Gt, MinLen
from torch import nn

from robusteval.classifier import Classifier, Interpolation, Preprocessing
from robusteval.models.assemble import Size, assemble, check_normalisation

Whole = Annotated[int, Gt(0)]


@dataclass(frozen=True, kw_only=True)
class Described:
    """Base of the sources of a user's own networks.

    ``entry`` is package.module:function or path/to/file.py:function, called without arguments; ``weights`` a file.
    ``mean`` and ``sd`` (one number a channel, for images in [0, 1]) normalise inside; without them the network takes
    [0, 1] as it is. ``input_size`` is (channels, height, width); where it is not known, ``classes`` may be needed.
    ``class_names`` are in the order of the logits. ``resize`` (shorter side, px), ``crop`` (height, width) and
    ``interpolation`` say how picture files become inputs.
    """

    source: str
    name: str
    entry: str | None = None
    weights: str | None = None
    mean: tuple[float, ...] | None = None
    sd: tuple[float, ...] | None = None
    input_size: tuple[Whole, Whole, Whole] | None = None
    classes: Annotated[int, Gt(1)] | None = None
    class_names: Annotated[tuple[str, ...], MinLen(2)] | None = None
    resize: Whole | None = None
    crop: tuple[Whole, Whole] | None = None
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        check_normalisation(self.mean, self.sd, self.input_size)

    @property
    def path(self) -> Path | None:
        """The file of weights."""
        return None if self.weights is None else Path(self.weights).expanduser().absolute()

    def described(self, network: nn.Module, *, source: str, input_size: Size | None) -> Classifier:
        """Return the classifier of a network that holds its weights."""
        return assemble(
            network,
            name=self.name,
            source=source,
            mean=self.mean,
            sd=self.sd,
            classes=self.classes,
            input_size=input_size,
            class_names=self.class_names,
            preprocessing=Preprocessing(resize=self.resize, crop=self.crop, interpolation=self.interpolation),
        )
