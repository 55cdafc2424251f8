"""The test images of MNIST (LeCun, Cortes, Burges), in the IDX files that torchvision caches.

IDX: two zero bytes, the type of number (8 is uint8), the count of dimensions, each dimension as a big-endian 32-bit
integer, then the numbers.
"""

import gzip
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from robusteval.classifier import Preprocessing
from robusteval.datasets.base import Dataset, Source, data_root, from_memory
from robusteval.datasets.names import DIGITS
from robusteval.downloads import download
from robusteval.errors import UserError

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
SHA256 = {
    IMAGES: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    LABELS: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


@dataclass(frozen=True, kw_only=True)
class Mnist(Source):
    """10 000 test images of [1, 28, 28]; ``root`` holds MNIST/raw/ or the files, gzipped or not."""

    name: Literal["mnist"] = "mnist"
    download: bool = False

    unused: ClassVar = ("path",)
    instead: ClassVar = "give the folder as dataset.root=FOLDER"

    def missing(self) -> str | None:
        if self.download or (self._find(IMAGES) and self._find(LABELS)):
            return None
        root = data_root(self.root)
        absent = IMAGES if self._find(IMAGES) is None else LABELS
        return (
            f"MNIST is not there: {absent} (or {absent}.gz) is neither in {root / 'MNIST/raw'} nor in {root}; "
            "give its folder as dataset.root=FOLDER, or set dataset.download=true"
        )

    def load(self, preprocessing: Preprocessing, seed: int) -> Dataset:
        if problem := self.missing():
            raise UserError(problem)
        images, labels = self._get(IMAGES), self._get(LABELS)
        grey, numbers = read_idx(images, dimensions=3), read_idx(labels, dimensions=1)
        if len(grey) != len(numbers):
            raise UserError(f"{images} has {len(grey)} images but {labels} has {len(numbers)} labels; fetch both again")
        return from_memory(
            name=self.name,
            grey=grey[:, None],
            labels=numbers.astype(np.int64),
            class_names=DIGITS,
            n=self.n,
            seed=seed,
            origin=f"dataset=mnist ({images})",
        )

    def _find(self, name: str) -> Path | None:
        root = data_root(self.root)
        folders = (root / "MNIST" / "raw", root)
        return next(
            (path for folder in folders for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None
        )

    def _get(self, name: str) -> Path:
        if found := self._find(name):
            return found
        target = data_root(self.root) / "MNIST" / "raw" / f"{name}.gz"
        return download(f"{MIRROR}{name}.gz", target, sha256=SHA256[name])


def read_idx(path: Path, *, dimensions: int) -> np.ndarray:
    """Return the uint8 array in an IDX file, gzipped or not. Raises UserError naming the file where it is damaged."""
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}); remove it and set dataset.download=true") from error
    start = 4 + 4 * dimensions
    if len(raw) < start or raw[:4] != bytes([0, 0, 8, dimensions]):
        raise UserError(f"{path} is no IDX file of {dimensions} dimensions; remove it and set dataset.download=true")
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", dimensions, 4))
    have, told = len(raw) - start, prod(shape)
    if have != told:
        raise UserError(f"{path} has {have} numbers instead of {told}; remove it and set dataset.download=true")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
