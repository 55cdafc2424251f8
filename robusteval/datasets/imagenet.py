"""The validation pictures of ILSVRC 2012 ("ImageNet", Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575).

Two layouts: one folder a class, named by its WordNet id (n01440764), or one flat folder of ILSVRC2012_val_*.JPEG with a
file of labels. Labels are those of every published model: the rank of the WordNet id.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from robusteval.classifier import Preprocessing
from robusteval.datasets.base import Dataset, Source, digest, select
from robusteval.datasets.folder import find_pictures
from robusteval.datasets.imagenet_labels import LABEL_FILES, find_labels, read_labels
from robusteval.datasets.imagenet_protocol import protocol
from robusteval.datasets.names import imagenet_names, imagenet_wnids
from robusteval.datasets.pictures import content, reader
from robusteval.errors import UserError
from robusteval.published.robustbench import imagenet_pictures

FOLDERS = ("val", "validation", "ILSVRC2012_img_val", "ILSVRC/Data/CLS-LOC/val", "Data/CLS-LOC/val", ".")
_WNID = re.compile(r"n\d{8}")
_FLAT = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ImageNet(Source):
    """``root``, else the environment's IMAGENET_ROOT, holds the validation pictures, in ``val`` or directly.

    Not all classes and pictures need be there: labels come from names, not from positions. ``ids`` are the pictures'
    own numbers (from 0) where they have them, so that both layouts give the same. A model that states no preprocessing
    gets Resize(256), CenterCrop(224). ``subset=robustbench`` is the 5000 pictures of RobustBench's leaderboard by their
    numbers; ``n`` draws from these.
    """

    name: Literal["imagenet"] = "imagenet"
    subset: Literal["robustbench"] | None = None

    chunk: ClassVar[int] = 1024
    unused: ClassVar = ("path",)
    instead: ClassVar = "give the folder as dataset.root=FOLDER"

    def missing(self) -> str | None:
        root, key = self._root()
        if root is None:
            return (
                "the ImageNet validation pictures are not there: neither dataset.root nor IMAGENET_ROOT is set; "
                "give the folder that holds val/ as dataset.root=FOLDER"
            )
        if not root.is_dir():
            return f"{key}={root} is not a folder; give the folder that holds ImageNet's val/ as dataset.root=FOLDER"
        if (folder := _folder(root)) is None:
            return (
                f"{key}={root} holds no ImageNet validation pictures: neither folders by WordNet id (n01440764) nor "
                f"ILSVRC2012_val_*.JPEG, there or in {', '.join(FOLDERS[:3])}; give another dataset.root=FOLDER"
            )
        if not _has_class_folders(folder) and find_labels(root, folder) is None:
            return (
                f"{folder} holds the pictures without folders by class, and no file of labels was found near them; "
                f"put one of {', '.join(LABEL_FILES)} beside them"
            )
        return None

    def load(self, preprocessing: Preprocessing, seed: int) -> Dataset:
        root, key = self._root()
        if (problem := self.missing()) or root is None:
            raise UserError(problem or "the ImageNet validation pictures are gone")
        folder = _folder(root)
        if folder is None:
            raise UserError(f"{key}={root} holds no ImageNet validation pictures any more")
        where = f"{key}={root}"
        pictures = _by_class(folder, where) if _has_class_folders(folder) else _flat(root, folder)
        if not pictures:
            raise UserError(
                f"{where} has folders by WordNet id but no pictures in them; give another dataset.root=FOLDER"
            )
        own = _numbers([path for path, _ in pictures])
        if self.subset is not None:
            kept = _leaderboards(own, where)
            pictures, own = [pictures[position] for position in kept], None if own is None else own[kept]
        chosen = select(len(pictures), self.n, seed, self.name)
        ids = chosen if own is None else own[chosen]
        files = [pictures[position][0] for position in chosen]
        labels = np.array([pictures[position][1] for position in chosen], dtype=np.int64)
        # The name alone, without its folder: then the same pictures have the same digest in both layouts.
        identity = (
            content(files, folder) if own is None else [item.rpartition(b"/")[2] for item in content(files, folder)]
        )
        return Dataset(
            name=self.name,
            ids=ids,
            labels=labels,
            class_names=imagenet_names(),
            digest=digest(self.name, ids, labels, identity),
            read=reader(files, protocol(preprocessing)),
            origin=where,
        )

    def _root(self) -> tuple[Path | None, str]:
        """Return the root and the name of what set it."""
        key = "dataset.root" if self.root else "IMAGENET_ROOT"
        value = self.root or os.environ.get("IMAGENET_ROOT")
        return (Path(value).expanduser() if value else None), key


def _folder(root: Path) -> Path | None:
    """Return the first folder that holds pictures in either layout."""
    for name in FOLDERS:
        folder = root / name
        if folder.is_dir() and any(_is_class(entry) or _FLAT.fullmatch(entry.name) for entry in _entries(folder)):
            return folder
    return None


def _has_class_folders(folder: Path) -> bool:
    return any(_is_class(entry) for entry in _entries(folder))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); check its permissions") from error


def _is_class(entry: os.DirEntry[str]) -> bool:
    return _WNID.fullmatch(entry.name) is not None and entry.is_dir()


def _by_class(folder: Path, where: str) -> list[tuple[Path, int]]:
    """Return (picture, label), in the order of the pictures' own numbers where they have them."""
    order = {wnid: label for label, wnid in enumerate(imagenet_wnids())}
    wnids = sorted(entry.name for entry in _entries(folder) if _is_class(entry))
    if foreign := [wnid for wnid in wnids if wnid not in order]:
        raise UserError(
            f"{where} has the folder {foreign[0]}, which is none of the 1000 classes of ILSVRC 2012 "
            f"({len(foreign)} such); remove it, or use dataset=folder"
        )
    pictures = [(path, order[wnid]) for wnid in wnids for path in find_pictures(folder / wnid)]
    if _numbers([path for path, _ in pictures]) is not None:
        pictures.sort(key=lambda pair: pair[0].name)
    return pictures


def _leaderboards(own: np.ndarray | None, where: str) -> np.ndarray:
    """Return the positions (int64, ascending) of RobustBench's pictures among all, by their own numbers from 0."""
    wanted = np.array(imagenet_pictures(), dtype=np.int64) - 1
    there = np.array([], dtype=np.int64) if own is None else np.flatnonzero(np.isin(own, wanted))
    if len(there) < len(wanted):
        raise UserError(
            f"dataset.subset=robustbench needs {len(wanted)} validation pictures by their names "
            f"(ILSVRC2012_val_00000011.JPEG), and {where} lacks {len(wanted) - len(there)} of them; give another "
            "dataset.root=FOLDER"
        )
    return there


def _flat(root: Path, folder: Path) -> list[tuple[Path, int]]:
    labels_file = find_labels(root, folder)
    if labels_file is None:
        raise UserError(f"{folder} has no file of labels any more")
    labels = read_labels(labels_file)
    names = sorted(entry.name for entry in _entries(folder) if _FLAT.fullmatch(entry.name))
    pictures = []
    for name in names:
        number = _number(name)
        if number not in labels:
            raise UserError(f"{labels_file} has no label for {name}; give the labels of all pictures")
        pictures.append((folder / name, labels[number]))
    return pictures


def _number(name: str) -> int:
    match = _FLAT.fullmatch(name)
    return int(match[1]) if match else 0


def _numbers(files: list[Path]) -> np.ndarray | None:
    """Return the pictures' own numbers, from 0, or None where any has none or two are the same."""
    numbers = np.array([_number(file.name) for file in files], dtype=np.int64)
    if len(numbers) == 0 or numbers.min() < 1 or len(np.unique(numbers)) < len(numbers):
        return None
    return numbers - 1
