"""What a dataset is to the rest of the house, and what all sources of one share.

A source is a frozen dataclass of options that can look cheaply whether its data are there (``missing``) and load them.
A dataset is labels, ids and a function that reads images on demand, so that memory does not grow with their number.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor

from robusteval.classifier import Preprocessing
from robusteval.datasets.pixels import check_pixels
from robusteval.errors import UserError
from robusteval.randomness import subset

Read = Callable[[np.ndarray], Tensor]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labelled images, read on demand.

    ``ids`` int64 [n] are positions in the full source, the same whichever subset is drawn; ``labels`` int64 [n];
    ``class_names`` in the order of the labels, where known. ``digest`` is the sha256 of name, ids, labels and content.
    ``read`` turns positions *in this dataset* (0..n-1) into images; call ``images``, which checks them, instead.
    ``origin`` says in error messages where the images came from (the key and the file); ``notes`` are sentences that
    the user should see once.
    """

    name: str
    ids: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] | None
    digest: str
    read: Read
    origin: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def images(self, positions: Sequence[int] | np.ndarray) -> Tensor:
        """Return the images at ``positions`` (0..n-1): float32 [len(positions), C, H, W] in [0, 1], contiguous.

        Raises UserError where they are not finite or lie outside [-0.01, 1.01]; what lies between that and [0, 1] is
        rounding by whoever resized the images, and is clamped.
        """
        images = self.read(np.asarray(positions, dtype=np.int64)).to(torch.float32)
        check_pixels(images, self.origin)
        return images.clamp_(0, 1).contiguous()


@dataclass(frozen=True, kw_only=True)
class Source:
    """Base of all sources: the keys that every dataset has.

    ``name`` is the registered name, ``root`` a folder, ``path`` a file, ``n`` the size of a seeded subset. ``unused``
    names the keys that mean nothing to a source: a value there is refused, not ignored. ``chunk`` is the number of
    images in a planned unit of work.
    """

    name: str
    root: str | None = None
    n: Annotated[int, Gt(0)] | None = None
    path: str | None = None

    chunk: ClassVar[int] = 256
    unused: ClassVar[tuple[str, ...]] = ()
    instead: ClassVar[str] = "leave it out"

    def __post_init__(self) -> None:
        for key in self.unused:
            if (value := getattr(self, key)) is not None:
                raise UserError(
                    f"dataset={self.name} has no use for dataset.{key} ('{value}' was given); {self.instead}"
                )

    def missing(self) -> str | None:
        """Return one sentence on what is missing, where it was looked for and what to do; None where all is there."""
        raise NotImplementedError

    def load(self, preprocessing: Preprocessing, seed: int) -> Dataset:
        """Return the dataset, or its subset of ``n`` drawn by ``seed``. Raises UserError where files are wrong."""
        raise NotImplementedError


def select(total: int, n: int | None, seed: int, name: str) -> np.ndarray:
    """Return the positions (int64, ascending) of a seeded subset of ``n`` out of ``total``; all where n is None."""
    if n is None:
        return np.arange(total, dtype=np.int64)
    if n > total:
        raise UserError(f"dataset.n={n} is more than the {total} images of dataset={name}; give {total} or less")
    return subset(total, n, seed).astype(np.int64)


def digest(name: str, ids: np.ndarray, labels: np.ndarray, content: Iterable[bytes]) -> str:
    """Return the sha256 over name, ids, labels and content, each part preceded by its length."""
    total = hashlib.sha256()
    for part in (name.encode(), ids.astype("<i8").tobytes(), labels.astype("<i8").tobytes(), *content):
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


def from_memory(
    *,
    name: str,
    grey: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...] | None,
    n: int | None,
    seed: int,
    origin: str,
    ids: np.ndarray | None = None,
) -> Dataset:
    """Return a dataset of grey values held in memory: uint8 [total, C, H, W], labels [total].

    ``ids`` [total] are positions in the full source, where that is larger than what is given.
    """
    chosen = select(len(grey), n, seed, name)
    kept, kept_labels = np.ascontiguousarray(grey[chosen]), labels[chosen].astype(np.int64)
    kept_ids = chosen if ids is None else ids[chosen].astype(np.int64)

    def read(positions: np.ndarray) -> Tensor:
        return torch.from_numpy(kept[positions]).to(torch.float32).div_(255)

    return Dataset(
        name=name,
        ids=kept_ids,
        labels=kept_labels,
        class_names=class_names,
        digest=digest(name, kept_ids, kept_labels, (str(kept.shape).encode(), kept.tobytes())),
        read=read,
        origin=origin,
    )


def data_root(root: str | None) -> Path:
    """Return where downloaded datasets lie: ``dataset.root``, else ROBUSTEVAL_DATA, else a cache in the home folder."""
    return Path(root or os.environ.get("ROBUSTEVAL_DATA") or "~/.cache/robusteval/data").expanduser()
