"""The 20 labelled pictures each of five datasets that come with the package foolbox (MIT)."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from robusteval.classifier import Preprocessing
from robusteval.datasets import names
from robusteval.datasets.base import Dataset, Source, digest, select
from robusteval.datasets.imagenet_protocol import protocol
from robusteval.datasets.pictures import Mode, content, reader
from robusteval.errors import UserError

INSTALL = "install it with: pip install 'robusteval[demo]'"

# name -> the start of the file names, how pictures are decoded
_FILES: dict[str, tuple[str, Mode]] = {
    "imagenet_samples": ("imagenet", "RGB"),
    "cifar10_samples": ("cifar10", "RGB"),
    "cifar100_samples": ("cifar100", "RGB"),
    "mnist_samples": ("mnist", "L"),
    "fashion_mnist_samples": ("fashionMNIST", "L"),
}


@dataclass(frozen=True, kw_only=True)
class Samples(Source):
    """20 test images of the dataset in its name; only those of ImageNet are resized and cropped."""

    name: Literal["imagenet_samples", "cifar10_samples", "cifar100_samples", "mnist_samples", "fashion_mnist_samples"]

    unused: ClassVar = ("root", "path")
    instead: ClassVar = "its images come with the package foolbox, so leave it out"

    def missing(self) -> str | None:
        if _folder() is None:
            return f"dataset={self.name} needs the package foolbox, which is not installed; {INSTALL}"
        return None

    def load(self, preprocessing: Preprocessing, seed: int) -> Dataset:
        if (folder := _folder()) is None:
            raise UserError(self.missing() or "foolbox is gone")
        start, mode = _FILES[self.name]
        # imagenet_07_609.jpg: the seventh picture, of class 609
        found = [(file, match) for file in folder.iterdir() if (match := _pattern(start).fullmatch(file.name))]
        found.sort(key=lambda pair: int(pair[1]["index"]))
        if not found:
            raise UserError(f"{folder} has no pictures {start}_*; reinstall the package foolbox")
        ids = select(len(found), self.n, seed, self.name)
        files = [found[position][0] for position in ids]
        labels = np.array([int(found[position][1]["label"]) for position in ids], dtype=np.int64)
        keep_size = self.name != "imagenet_samples"
        return Dataset(
            name=self.name,
            ids=ids,
            labels=labels,
            class_names=self._class_names(),
            digest=digest(self.name, ids, labels, content(files, folder)),
            read=reader(files, Preprocessing() if keep_size else protocol(preprocessing), mode),
            origin=f"dataset={self.name} ({folder})",
        )

    def _class_names(self) -> tuple[str, ...]:
        match self.name:
            case "imagenet_samples":
                return names.imagenet_names()
            case "cifar10_samples":
                return names.CIFAR10
            case "cifar100_samples":
                return names.CIFAR100
            case "mnist_samples":
                return names.DIGITS
            case "fashion_mnist_samples":
                return names.FASHION


def _pattern(start: str) -> re.Pattern[str]:
    return re.compile(rf"{start}_(?P<index>\d+)_(?P<label>\d+)\.(?:jpg|png)")


def _folder() -> Path | None:
    """Return foolbox's folder of pictures without importing foolbox, or None where it is not installed."""
    spec = find_spec("foolbox")
    for package in (spec.submodule_search_locations if spec else None) or ():
        if (folder := Path(package, "data")).is_dir():
            return folder
    return None
