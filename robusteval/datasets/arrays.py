"""Images and labels that the user has as arrays, in one .npz or .safetensors file."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from robusteval.classifier import Preprocessing
from robusteval.datasets.array_files import ArrayFile, open_arrays
from robusteval.datasets.base import Dataset, Source, digest, select
from robusteval.errors import UserError

Layout = Literal["NCHW", "NHWC"]
_LOOKED_AT = 256  # images whose range is looked at when the file is opened; every other when it is read


@dataclass(frozen=True, kw_only=True)
class Arrays(Source):
    """``dataset.path`` holds ``images`` (NCHW or NHWC, uint8 or float in [0, 1]) and ``labels`` (integers [n]).

    An npz file is held in memory as it is stored; of a safetensors file only the images in use are read. Nothing is
    unpickled. Where ``layout`` is ``auto`` it is told from the number of channels, 1 or 3.
    """

    name: Literal["arrays"] = "arrays"
    layout: Literal["auto", "NCHW", "NHWC"] = "auto"

    unused: ClassVar = ("root",)
    instead: ClassVar = "give the file as dataset.path=FILE.npz"

    def missing(self) -> str | None:
        if self.path is None:
            return "dataset=arrays needs a file with images and labels; give dataset.path=FILE.npz (or .safetensors)"
        if not self._file().is_file():
            return f"dataset.path={self.path} is not a file; give the path of an .npz or .safetensors file"
        return None

    def load(self, preprocessing: Preprocessing, seed: int) -> Dataset:
        if problem := self.missing():
            raise UserError(problem)
        where = f"dataset.path={self.path}"
        store = open_arrays(self._file(), where)
        layout = _layout(store.shape, self.layout, where)
        labels = _labels(store, where)
        ids = select(len(labels), self.n, seed, self.name)
        labels = labels[ids]
        _grey_values(store, ids[:_LOOKED_AT], where)

        def read(positions: np.ndarray) -> Tensor:
            images = store.rows(ids[positions])
            if layout == "NHWC":
                images = images.transpose(0, 3, 1, 2)
            scale = 255 if images.dtype == np.uint8 else 1
            with np.errstate(over="ignore"):  # becomes infinite, and is refused as that
                return torch.from_numpy(images.astype(np.float32)).div_(scale)

        return Dataset(
            name=self.name,
            ids=ids,
            labels=labels,
            class_names=None,
            digest=digest(self.name, ids, labels, [layout.encode(), store.sha256.encode()]),
            read=read,
            origin=where,
        )

    def _file(self) -> Path:
        return Path(self.path or "").expanduser()


def _layout(shape: tuple[int, ...], asked: Literal["auto", "NCHW", "NHWC"], where: str) -> Layout:
    if len(shape) == 3:
        raise UserError(f"{where} has images of shape {list(shape)}; add the channel, as in images[:, None]")
    if len(shape) != 4:
        raise UserError(f"{where} has images of shape {list(shape)}; [n, C, H, W] or [n, H, W, C] is needed")
    if asked != "auto":
        return asked
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first == last:
        raise UserError(
            f"{where} has images of shape {list(shape)}, which does not tell where the channels are; "
            "say so with dataset.layout=NCHW or dataset.layout=NHWC"
        )
    return "NCHW" if first else "NHWC"


def _labels(store: ArrayFile, where: str) -> np.ndarray:
    """Return the labels as int64 [n]."""
    labels, images = store.labels, store.shape[0]
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise UserError(f"{where} has labels of shape {list(labels.shape)}; give class numbers, as in labels.argmax(1)")
    if labels.ndim != 1:
        raise UserError(f"{where} has labels of shape {list(labels.shape)}; [n] is needed, as in labels.ravel()")
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{where} has labels of type {labels.dtype}; give integers, as in labels.astype('int64')")
    if len(labels) != images:
        raise UserError(f"{where} has {images} images but {len(labels)} labels; give one label for each image")
    if images == 0:
        raise UserError(f"{where} has no images; give at least one")
    return labels.astype(np.int64)


def _grey_values(store: ArrayFile, positions: np.ndarray, where: str) -> None:
    """Refuse images of [0, 1] that were cut to integers: they are uint8 but nearly black."""
    images = store.rows(positions)
    if images.dtype == np.uint8 and images.max(initial=0) <= 1:
        raise UserError(
            f"{where} has uint8 images with no value above 1, nearly black; give 0 to 255, or floating point in [0, 1]"
        )
