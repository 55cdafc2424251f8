"""What a transform is: a frozen dataclass of options that makes another classifier of one, and says what it did."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from robusteval.classifier import Classifier
from robusteval.errors import UserError

Facts = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Images [n, C, H, W] in [0, 1] with labels [n] that are not reported; ``source`` says where they are from."""

    images: Tensor
    labels: Tensor
    source: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a transform may look at: ``example`` [1, C, H, W], a reported image, for its size alone.

    ``held_out(n, path)`` gives at most n images that are not reported, from a file or from the dataset's rest; it
    raises UserError where there are none. ``model(name, options)`` loads another model.
    """

    example: Tensor
    held_out: Callable[[int, str | None], HeldOut]
    model: Callable[[str, Mapping[str, Any]], Classifier]


@dataclass(frozen=True, kw_only=True)
class Transform:
    """Base of all transforms.

    ``last`` says that nothing may come behind it in the list, ``randomised`` that its network draws random numbers.
    """

    method: ClassVar[str]
    last: ClassVar[bool] = False
    randomised: ClassVar[bool] = False

    def label(self) -> str:
        """Return what stands in the model's printed name, such as ``padding(reflect, swap)``."""
        raise NotImplementedError

    def other(self) -> tuple[str, Mapping[str, Any]] | None:
        """Return the name and the options of another model that it takes; None where it takes none."""
        return None

    def apply(self, classifier: Classifier, material: Material) -> tuple[nn.Module, Facts]:
        """Return the transformed network and what run.json says of it.

        ``classifier.module`` is a copy that may be changed in place. Raises UserError where it cannot be transformed.
        """
        raise NotImplementedError


def refuse(transform: str, reason: str) -> UserError:
    """Return the error of a transform that cannot be done."""
    return UserError(f"transform={transform}: {reason}")
