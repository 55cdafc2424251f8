"""Shared by the tests of transforms: classifiers of fresh networks, and what they may look at."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from robusteval.classifier import Classifier
from robusteval.models.transforms.base import HeldOut, Material


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def classifier() -> Callable[..., Classifier]:
    """Return the classifier of a network."""

    def of(network: nn.Module, name: str = "net", classes: int = 10) -> Classifier:
        return Classifier(module=network.eval(), name=name, source="test", classes=classes, digest="0")

    return of


@pytest.fixture
def material() -> Callable[..., Material]:
    """Return what a transform may look at: an example of a size, and held-out images with labels where given."""

    def of(size: tuple[int, int, int], held_out: tuple[torch.Tensor, torch.Tensor] | None = None) -> Material:
        def images(n: int, path: str | None) -> HeldOut:
            assert held_out is not None
            return HeldOut(images=held_out[0][:n], labels=held_out[1][:n], source="the test", digest="1")

        def model(name: str, options: object) -> Classifier:
            raise NotImplementedError

        return Material(example=torch.rand(1, *size), held_out=images, model=model)

    return of
