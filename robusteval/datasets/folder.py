"""Pictures that the user has sorted into one folder a class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from robusteval.classifier import Preprocessing
from robusteval.datasets.base import Dataset, Source, digest, select
from robusteval.datasets.pictures import SUFFIXES, content, reader
from robusteval.errors import UserError

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True, kw_only=True)
class Folder(Source):
    """``root`` has one folder a class; in the order of their names (numbers as numbers) they are labels 0, 1, 2, ...

    Pictures are resized and cropped as the model states, and decoded as colour (``mode`` RGB) or grey (L).
    """

    name: Literal["folder"] = "folder"
    mode: Literal["RGB", "L"] = "RGB"

    unused: ClassVar = ("path",)
    instead: ClassVar = "give the folder as dataset.root=FOLDER"

    def missing(self) -> str | None:
        if self.root is None:
            return "dataset=folder needs a folder with one sub-folder a class; give dataset.root=FOLDER"
        if not Path(self.root).expanduser().is_dir():
            return f"dataset.root={self.root} is not a folder; give a folder with one sub-folder a class"
        return None

    def load(self, preprocessing: Preprocessing, seed: int) -> Dataset:
        if problem := self.missing():
            raise UserError(problem)
        where = f"dataset.root={self.root}"
        root = Path(self.root or "").expanduser()
        classes, notes = _in_order(_class_folders(root, where), where)
        pictures = [(path, label) for label, folder in enumerate(classes) for path in find_pictures(root / folder)]
        if not pictures:
            raise UserError(
                f"{where} has folders but no pictures in them ({', '.join(SUFFIXES)}); give the right folder"
            )
        ids = select(len(pictures), self.n, seed, self.name)
        files = [pictures[position][0] for position in ids]
        labels = np.array([pictures[position][1] for position in ids], dtype=np.int64)
        return Dataset(
            name=self.name,
            ids=ids,
            labels=labels,
            class_names=tuple(classes),
            digest=digest(self.name, ids, labels, [self.mode.encode(), *content(files, root)]),
            read=reader(files, preprocessing, self.mode),
            origin=where,
            notes=notes,
        )


def find_pictures(folder: Path) -> list[Path]:
    """Return the picture files below ``folder`` at any depth, sorted by path; hidden ones are left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def _class_folders(root: Path, where: str) -> list[str]:
    try:
        entries = [entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))]
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror}); check its permissions") from error
    if not entries:
        raise UserError(f"{where} has no sub-folders; put the pictures of each class into a folder of its own")
    if {entry.lower() for entry in entries} <= _SPLITS:
        raise UserError(f"{where} holds {', '.join(sorted(entries))}, which are no classes; give one of these folders")
    return entries


def _in_order(folders: Sequence[str], where: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the folders in the order of their labels, and what to tell the user about it.

    As strings 10 comes before 2, the classical way to an accuracy of one in a thousand.
    """
    if not all(folder.isascii() and folder.isdigit() for folder in folders):
        return sorted(folders), ()
    ordered = sorted(folders, key=int)
    numbers = [int(folder) for folder in ordered]
    first = numbers[0]
    if first > 1 or numbers != list(range(first, first + len(numbers))):
        raise UserError(
            f"{where} has folders named by numbers with a gap or a double ({', '.join(ordered[:5])} ...), so that "
            "labels are unclear; number them 0, 1, 2, ... (a folder may be empty), or give them names"
        )
    last = f"'{ordered[-1]}' is label {len(ordered) - 1}"
    return ordered, (f"{where}: class folders are sorted as numbers: '{ordered[0]}' is label 0, {last}",)
