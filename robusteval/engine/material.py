"""What transforms may look at: a reported image for its size, images that are not reported, other models."""

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robusteval.classifier import Classifier
from robusteval.config import Config, named_model
from robusteval.datasets.arrays import Arrays
from robusteval.datasets.base import Dataset, digest
from robusteval.datasets.checks import check, check_images
from robusteval.errors import UserError
from robusteval.models.transforms.base import HeldOut, Material
from robusteval.randomness import subset

_READ = 256  # images at a time


def material(config: Config, classifier: Classifier, dataset: Dataset) -> Material:
    """Return what the transforms of a configuration may look at, after a look whether the images fit the model."""
    check(dataset, classifier, dataset.images(range(min(len(dataset), 32))))
    return Material(
        example=dataset.images([0]),
        held_out=_HeldOut(config=config, classifier=classifier, dataset=dataset),
        model=lambda name, options: named_model(name, options, "transform.mix").load(),
    )


@dataclass(frozen=True, kw_only=True)
class _HeldOut:
    config: Config
    classifier: Classifier
    dataset: Dataset

    def __call__(self, n: int, path: str | None) -> HeldOut:
        whole, left = self._rest() if path is None else self._file(path)
        chosen = left[subset(len(left), n, self.config.seed)]
        images = whole.images(chosen)
        check_images(images, self.classifier, whole.origin)
        labels = whole.labels[chosen]
        if labels.min() < 0 or labels.max() >= self.classifier.classes:
            raise UserError(f"{whole.origin}: labels go from {labels.min()} to {labels.max()}, but the model has "
                            f"{self.classifier.classes} classes")  # fmt: skip
        return HeldOut(
            images=images,
            labels=torch.from_numpy(labels),
            source=_source(self.config, len(chosen), path),
            digest=digest(whole.name, whole.ids[chosen], labels, [images.numpy().tobytes()]),
        )

    def _rest(self) -> tuple[Dataset, np.ndarray]:
        """Return the whole dataset, and the positions in it of what ``dataset.n`` did not draw."""
        whole = dataclasses.replace(self.config.dataset, n=None).load(self.classifier.preprocessing, self.config.seed)
        left = np.flatnonzero(~np.isin(whole.ids, self.dataset.ids))
        if not len(left):
            raise UserError(
                f"transform: what is fitted is fitted on images that are not reported, but all {len(whole)} of "
                f"dataset={self.config.dataset.name} are; report fewer by dataset.n={len(whole) // 2}, or name a file "
                "of others by the transform's path"
            )
        return whole, left

    def _file(self, path: str) -> tuple[Dataset, np.ndarray]:
        """Return the images of a file, all of them. Raises UserError where reported ones are among them."""
        others = Arrays(path=path).load(self.classifier.preprocessing, self.config.seed)
        seen = set(_fingerprints(others))
        for number, one in enumerate(_fingerprints(self.dataset)):
            if one in seen:
                raise UserError(
                    f"{path}: image {self.dataset.ids[number]} of dataset={self.config.dataset.name} is in it, which "
                    "is reported; what is fitted to reported images flatters them, so name a file of others"
                )
        return others, np.arange(len(others))


def _source(config: Config, n: int, path: str | None) -> str:
    if path is not None:
        return f"{n} images of {path}, none of them reported"
    return f"{n} images of dataset={config.dataset.name} that dataset.n={config.dataset.n} did not draw"


def _fingerprints(dataset: Dataset) -> Iterator[bytes]:
    """Yield a hash of every image's pixels, as 8-bit values where they are such."""
    for begin in range(0, len(dataset), _READ):
        images: Tensor = dataset.images(range(begin, min(begin + _READ, len(dataset))))
        # In steps of half a grey value, so that rounding of whoever stored the images hides nothing.
        for image in (images * 510).round().to(torch.int16).numpy():
            yield hashlib.sha256(image.tobytes()).digest()
