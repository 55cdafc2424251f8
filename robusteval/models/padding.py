"""Networks that were trained with one padding each: those on MNIST come with robusteval, others are trained first."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robusteval.classifier import Classifier
from robusteval.datasets import names
from robusteval.errors import UserError
from robusteval.models import padding_nets
from robusteval.models.assemble import assemble
from robusteval.models.bundled import WEIGHTS
from robusteval.models.padding_nets import Mode
from robusteval.models.weights import fill, read


@dataclass(frozen=True, kw_only=True)
class PaddingNet:
    """``mnist_padding`` or ``cifar10_resnet20`` with the padding ``mode`` in all its convolutions of side ``kernel``.

    ``weights`` is a file that ``robusteval train recipe=padding`` wrote; without it those that come with robusteval: of
    mnist_padding with kernels of 3, trained as usual or (``adversarial``) by PGD.
    """

    source: Literal["padding"] = "padding"
    name: Literal["mnist_padding", "cifar10_resnet20"] = "mnist_padding"
    mode: Mode = "zeros"
    kernel: Literal[3, 5, 7, 9] = 3
    adversarial: bool = False
    weights: str | None = None

    def __post_init__(self) -> None:
        if (sentence := padding_nets.refusal(self.name, self.mode, self.kernel)) is not None:
            raise ValueError(sentence)

    @property
    def label(self) -> str:
        """The name with what tells its variants apart."""
        size = "" if self.kernel == 3 else f", kernel {self.kernel}"
        return f"{self.name}({self.mode}, trained{size}{', adversarial' * self.adversarial})"

    @property
    def path(self) -> Path:
        if self.weights is not None:
            return Path(self.weights).expanduser()
        name = padding_nets.file_name(self.name, self.mode, self.kernel, adversarial=self.adversarial)
        return WEIGHTS / f"{name}.safetensors"

    def missing(self) -> str | None:
        """Return a sentence where the weights are not there."""
        if self.path.is_file():
            return None
        if self.weights is not None:
            return f"model.weights={self.weights}: there is no file {self.path.absolute()}; name a file of weights"
        dataset = "mnist_5k" if self.name == "mnist_padding" else "cifar10 root=FOLDER"
        adversarial = " adversarial=true" * self.adversarial
        return (
            f"no weights of {self.label} come with robusteval; make them with: robusteval train recipe=padding "
            f"mode={self.mode} kernel={self.kernel}{adversarial} dataset={dataset}, and name the file by "
            "model.weights=FILE"
        )

    def load(self) -> Classifier:
        """Return the classifier. Raises UserError where the weights are not there or are another network's."""
        on_mnist = self.name == "mnist_padding"
        if (sentence := self.missing()) is not None:
            raise UserError(sentence)
        network = (padding_nets.mnist if on_mnist else padding_nets.cifar10)(self.mode, self.kernel)
        fill(network, read(self.path), source=str(self.path))
        return assemble(
            network,
            name=self.label,
            source=self.source,
            input_size=(1, 28, 28) if on_mnist else (3, 32, 32),
            classes=10,
            class_names=names.DIGITS if on_mnist else names.CIFAR10,
        )
