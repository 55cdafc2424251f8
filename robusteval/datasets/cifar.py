"""The test images of CIFAR-10 and CIFAR-100 (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html).

The files are those that torchvision caches. They are pickles: only the published bytes are read (their MD5 is checked
first), and of what a pickle may ask for only arrays of numbers are built.
"""

import hashlib
import io
import pickle
import tarfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from robusteval.classifier import Preprocessing
from robusteval.datasets import names
from robusteval.datasets.base import Dataset, Source, data_root, from_memory
from robusteval.downloads import download
from robusteval.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where the authors keep the data, and what identifies them; MD5 as on their page and in torchvision."""

    title: str
    archive: str
    sha256: str
    member: str
    md5: str
    label_key: str
    class_names: tuple[str, ...]


CIFAR10 = Published(
    title="CIFAR-10",
    archive="cifar-10-python.tar.gz",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    member="cifar-10-batches-py/test_batch",
    md5="40351d587109b95175f43aff81a1287e",
    label_key="labels",
    class_names=names.CIFAR10,
)
# The five files of the 50 000 training images.
CIFAR10_TRAINING = tuple(
    replace(CIFAR10, member=f"cifar-10-batches-py/data_batch_{number}", md5=md5)
    for number, md5 in enumerate(
        (
            "c99cafc152244af753f735de768cd75f",
            "d4bba439e000b95fd0a9bffe97cbabec",
            "54ebc095f3ab1f0389bbae665268c751",
            "634d18415352ddfa80567beed471001a",
            "482c414d41f54cd18b22e5b47cb7c3cb",
        ),
        1,
    )
)
CIFAR100 = Published(
    title="CIFAR-100",
    archive="cifar-100-python.tar.gz",
    sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    member="cifar-100-python/test",
    md5="f0ef6b0ae62326f3e7ffdfab6717acfc",
    label_key="fine_labels",
    class_names=names.CIFAR100,
)
PAGE = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True, kw_only=True)
class _Cifar(Source):
    """``root`` is the folder that holds the archive or the unpacked folder; ``download`` fetches the archive there."""

    download: bool = False

    published: ClassVar[Published]
    unused: ClassVar = ("path",)
    instead: ClassVar = "give the folder as dataset.root=FOLDER"

    def missing(self) -> str | None:
        root, name = data_root(self.root), self.published
        if self.download or _unpacked(root, name) or (root / name.archive).is_file():
            return None
        return (
            f"{name.title} is not there: neither {root / name.member} nor {root / name.archive} exists; "
            "give its folder as dataset.root=FOLDER, or set dataset.download=true"
        )

    def load(self, preprocessing: Preprocessing, seed: int) -> Dataset:
        if problem := self.missing():
            raise UserError(problem)
        place, raw = _bytes(data_root(self.root), self.published)
        grey, labels = _unpickle(raw, self.published, place)
        return from_memory(
            name=self.name,
            grey=grey,
            labels=labels,
            class_names=self.published.class_names,
            n=self.n,
            seed=seed,
            origin=f"dataset={self.name} ({place})",
        )


def training_images(root: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the training images of CIFAR-10, uint8 [50000, 3, 32, 32], and their labels, int64 [50000].

    Raises UserError where the five files are neither unpacked below ``root`` nor in the archive there.
    """
    parts = []
    for published in CIFAR10_TRAINING:
        folder = data_root(root)
        if _unpacked(folder, published) is None and not (folder / published.archive).is_file():
            raise UserError(
                f"the training images of CIFAR-10 are not there: neither {folder / published.member} nor "
                f"{folder / published.archive} exists; give the folder as root=FOLDER, or fetch the archive there by "
                "an evaluation with dataset=cifar10 dataset.download=true"
            )
        place, raw = _bytes(folder, published)
        parts.append(_unpickle(raw, published, place))
    return np.concatenate([grey for grey, _ in parts]), np.concatenate([labels for _, labels in parts])


def _unpacked(root: Path, published: Published) -> Path | None:
    """Return the unpacked file; ``root`` may also be the folder that holds it."""
    member = Path(published.member)
    return next((path for path in (root / member, root / member.name) if path.is_file()), None)


def _bytes(root: Path, published: Published) -> tuple[Path, bytes]:
    """Return where the file is and its bytes, out of the archive where it is not unpacked."""
    if path := _unpacked(root, published):
        try:
            return path, path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    archive = root / published.archive
    if not archive.is_file():
        download(PAGE + published.archive, archive, sha256=published.sha256)
    try:
        with tarfile.open(archive) as tar:
            member = tar.extractfile(published.member)
            return archive, member.read() if member else b""
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{archive} is damaged ({error}); remove it and set dataset.download=true") from error


@dataclass(frozen=True, kw_only=True)
class Cifar10(_Cifar):
    """10 000 test images of [3, 32, 32], 10 classes."""

    name: Literal["cifar10"] = "cifar10"
    published: ClassVar = CIFAR10


@dataclass(frozen=True, kw_only=True)
class Cifar100(_Cifar):
    """10 000 test images of [3, 32, 32], 100 classes (the fine labels)."""

    name: Literal["cifar100"] = "cifar100"
    published: ClassVar = CIFAR100


class _Numbers(pickle.Unpickler):
    """An unpickler that builds NumPy arrays and nothing else."""

    allowed: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in self.allowed:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} is not allowed")
        return super().find_class(module_name, global_name)


def _unpickle(raw: bytes, published: Published, place: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 [n, 3, 32, 32] and labels int64 [n]."""
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if found != published.md5:
        raise UserError(
            f"{place} is not the published file of {published.title} (MD5 {found} instead of {published.md5}); "
            "remove it and set dataset.download=true"
        )
    batch = _Numbers(io.BytesIO(raw), encoding="latin1").load()
    grey = np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
    return grey, np.asarray(batch[published.label_key], dtype=np.int64)
