"""A dataset in a random order, for runs that may end before all of it is done."""

import dataclasses

import numpy as np
from torch import Tensor

from robusteval import randomness
from robusteval.datasets.base import Dataset


def shuffled(dataset: Dataset, seed: int) -> Dataset:
    """Return the same images, with the same digest, in an order that only the seed and their number decide."""
    order = randomness.generator(seed, 0, "robusteval.order").permutation(len(dataset))

    def read(positions: np.ndarray) -> Tensor:
        return dataset.read(order[positions])

    return dataclasses.replace(dataset, ids=dataset.ids[order], labels=dataset.labels[order], read=read)
