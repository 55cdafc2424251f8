"""Torchvision's classifiers by name, with the preprocessing that their weights declare."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from torch import nn

from robusteval.classifier import Classifier, Preprocessing, Reference
from robusteval.datasets.names import imagenet_names
from robusteval.downloads import download
from robusteval.errors import UserError, did_you_mean
from robusteval.models.assemble import assemble
from robusteval.models.weights import StateDict, fill, read

# What torchvision sets when it loads weights, so that the network is the one that they were published for.
_AS_PUBLISHED: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}

# Checkpoints of DenseNet are older than the rule that a module's name holds no dot: norm.1 became norm1.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


@dataclass(frozen=True, kw_only=True)
class Torchvision:
    """A classifier of torchvision. ``weights`` is DEFAULT, a name such as IMAGENET1K_V1, or the path of a file.

    A file takes the preprocessing of the default weights.
    """

    source: Literal["torchvision"] = "torchvision"
    name: str
    weights: str = "DEFAULT"

    def __post_init__(self) -> None:
        if self.name == "???":  # what the configuration file has where the user must choose
            raise UserError("model=torchvision needs model.name=NAME, such as mobilenet_v3_small")

    def missing(self) -> str | None:
        """Return a sentence where the weights are not on this machine; nothing is downloaded."""
        path, url = self._place()
        if path.is_file():
            return None
        if url is None:
            return (
                f"model.weights={self.weights} is neither a file nor one of torchvision's weights for {self.name} "
                f"({_known(self.name)})"
            )
        return (
            f"the weights of {self.name} ({self._entry().name}) are not at {path}; connect to the internet to "
            "download them from "
            f"{url}, put that file there, or name your own with model.weights=FILE"
        )

    def load(self) -> Classifier:
        """Return the classifier, downloading its weights into torch's hub cache where they are not there yet."""
        path, url = self._place()
        if not path.is_file():
            if url is None:
                raise UserError(str(self.missing()))
            download(url, path, sha256_prefix=_hash_prefix(path.name))
        entry = self._entry()
        transform, categories = entry.transforms(), entry.meta["categories"]
        side = _side(entry)
        network = build(self.name, len(categories), side)
        fill(network, modern(self.name, read(path)), source=str(path))
        return assemble(
            network,
            name=self.name,
            source=f"{self.source} {path.name if url is None else entry.name}",
            mean=transform.mean,
            sd=transform.std,
            input_size=(3, side, side),
            classes=len(categories),
            # The same names as the dataset's, so that their order can be compared.
            class_names=imagenet_names() if len(categories) == 1000 else categories,
            preprocessing=preprocessing_of(entry),
            reference=_reference(entry) if url is not None else None,
        )

    def _place(self) -> tuple[Path, str | None]:
        """Return where the weights should lie, and their address unless they are a file of the user's."""
        entries = weights_of(self.name)
        if self.weights != "DEFAULT" and self.weights not in entries:
            return Path(self.weights).expanduser(), None
        import torch

        url = self._entry().url
        return Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name), url

    def _entry(self) -> Any:
        entries = weights_of(self.name)
        return entries[self.weights] if self.weights in entries else next(iter(entries.values()))


def names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    from torchvision import models

    return models.list_models(module=models)


def weights_of(name: str) -> dict[str, Any]:
    """Return the weights that classify (name to enum member), the default first. Raises UserError for unknown names."""
    from torchvision import models

    if name not in names():
        raise UserError(f"model.name={name} is not a classifier of torchvision{did_you_mean(name, names())}")
    every = models.get_model_weights(name)
    ordered = [every["DEFAULT"], *every]
    return {entry.name: entry for entry in ordered if entry.meta.get("categories")}


def side_of(name: str) -> int:
    """Return the side (px) of the images that the default weights take."""
    return _side(next(iter(weights_of(name).values())))


def preprocessing_of(entry: Any) -> Preprocessing:
    """Return the steps that torchvision publishes with weights."""
    transform, side = entry.transforms(), _side(entry)
    return Preprocessing(
        resize=int(transform.resize_size[0]), crop=(side, side), interpolation=transform.interpolation.value
    )


def _reference(entry: Any) -> Reference | None:
    """Return the accuracy that torchvision states for weights of its own; None where it states none."""
    percent = entry.meta.get("_metrics", {}).get("ImageNet-1K", {}).get("acc@1")
    return None if percent is None else Reference(accuracy=percent / 100, dataset="imagenet", source="torchvision")


def build(name: str, classes: int, side: int) -> nn.Module:
    """Return the network with fresh weights, for images of ``side`` px where its weights depend on that."""
    from torchvision import models

    options = dict(_AS_PUBLISHED.get(name, {}))
    if name.startswith("vit_"):
        options["image_size"] = side
    return models.get_model(name, weights=None, num_classes=classes, **options)


def modern(name: str, state: StateDict) -> StateDict:
    """Return the weights under today's names."""
    if not name.startswith("densenet"):
        return state
    return {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}


def _side(entry: Any) -> int:
    return int(entry.transforms().crop_size[0])


def _hash_prefix(file_name: str) -> str | None:
    # Torchvision's files are named after the start of their sha256, as in resnet50-11ad3fa6.pth.
    match = re.search(r"-([0-9a-f]{8,})\.", file_name)
    return match[1] if match else None


def _known(name: str) -> str:
    return ", ".join(["DEFAULT", *weights_of(name)])
