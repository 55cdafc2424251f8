"""The small MNIST networks that come with robusteval; a card beside each says which ``robusteval train`` made it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robusteval.classifier import Classifier, Reference
from robusteval.datasets.names import DIGITS
from robusteval.models import mnist_cnn
from robusteval.models.assemble import assemble
from robusteval.models.weights import fill, read

WEIGHTS = Path(__file__).with_name("weights")


@dataclass(frozen=True, kw_only=True)
class Bundled:
    """``mnist_cnn`` (standard training) or ``mnist_cnn_at`` (adversarially trained, Linf 0.3)."""

    source: Literal["bundled"] = "bundled"
    name: Literal["mnist_cnn", "mnist_cnn_at"]

    @property
    def path(self) -> Path:
        return WEIGHTS / f"{self.name}.safetensors"

    def missing(self) -> str | None:
        """Return a sentence where the weights file is not where the installation put it."""
        if self.path.is_file():
            return None
        return (
            f"the bundled weights of {self.name} are not at {self.path}; reinstall robusteval, or make them with: "
            f"robusteval train {self.name}"
        )

    def load(self) -> Classifier:
        """Return the classifier: images [n, 1, 28, 28] to 10 logits, no normalisation."""
        network = mnist_cnn.network()
        fill(network, read(self.path), source=str(self.path))
        return assemble(
            network,
            name=self.name,
            source=self.source,
            input_size=mnist_cnn.INPUT_SIZE,
            classes=mnist_cnn.CLASSES,
            class_names=DIGITS,
            reference=_reference(self.path.with_suffix(".json")),
        )


def _reference(card: Path) -> Reference | None:
    """Return the accuracy on the images held out of training, as its card has it; None without a card."""
    if not card.is_file():
        return None
    accuracy = json.loads(card.read_text())["held_out"]["accuracy"]["clean"]
    return Reference(accuracy=accuracy, dataset="mnist_5k", source=card.name)
