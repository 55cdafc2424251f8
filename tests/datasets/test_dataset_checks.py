"""Datasets that do not fit the classifier are refused before any pass, with the likely cause."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights

from robusteval.classifier import Classifier
from robusteval.datasets.base import Dataset
from robusteval.datasets.checks import check, check_images
from robusteval.datasets.names import CIFAR10, CIFAR100, imagenet_names, imagenet_wnids
from robusteval.errors import UserError

IMAGES = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def classifier(
    classes: int = 10, size: tuple[int, int, int] | None = (3, 8, 8), names: tuple[str, ...] | None = None
) -> Classifier:
    return Classifier(
        module=nn.Identity(), name="net", source="test", classes=classes, input_size=size, class_names=names
    )


def dataset(labels: list[int] | None = None, names: tuple[str, ...] | None = None) -> Dataset:
    return Dataset(
        name="toy",
        ids=np.arange(10),
        labels=np.array(labels or range(10)),
        class_names=names,
        digest="",
        read=lambda positions: IMAGES[positions],
        origin="dataset.path=toy.npz",
    )


def test_what_fits_passes() -> None:
    check(dataset(), classifier(), IMAGES)
    check(dataset(), classifier(size=None), IMAGES)
    check(dataset(names=CIFAR10), classifier(names=CIFAR10), IMAGES)
    check(dataset(labels=[3] * 10), classifier(), IMAGES)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES * 4 - 2, "look normalised"),
        (IMAGES * 255, "divide by 255"),
        (IMAGES.clone().index_fill_(0, torch.tensor([4]), torch.nan), "not finite"),
        (IMAGES.double(), r"torch\.float64, float32"),
        ((IMAGES * 255).byte(), r"torch\.uint8, float32"),
        (IMAGES[:, 0], r"shape \[10, 8, 8\]"),
        (IMAGES[:, :1], "1 channels, but model=net takes 3"),
        (IMAGES[..., :7], r"8x7 .* takes 8x8"),
        (torch.full_like(IMAGES, 0.5), "every pixel of the first 10 images is 0.5"),
    ],
)
def test_wrong_images_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=rf"^dataset\.path=toy\.npz: .*{message}"):
        check(dataset(), classifier(), images)


def test_every_chunk_can_be_checked_alone() -> None:
    check_images(IMAGES, classifier(), "dataset=toy")
    check_images(torch.zeros(2, 3, 8, 8), classifier(), "dataset=toy")
    with pytest.raises(UserError, match=r"dataset=toy: .*normalised"):
        check_images(IMAGES - 0.1, classifier(), "dataset=toy")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([-1, *range(9)], "labels begin at -1"),
        ([*range(1, 11)], r"up to 10 \(do they count from 1\?\), but model=net has 10 classes"),
        ([0] * 9 + [700], "up to 700, but model=net has 10 classes, 0 to 9"),
    ],
)
def test_labels_outside_the_classes_are_refused(labels: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(dataset(labels), classifier(), IMAGES)


def test_another_count_of_classes_is_refused() -> None:
    with pytest.raises(UserError, match="10 classes, but model=net has 100"):
        check(dataset(names=CIFAR10), classifier(100, names=CIFAR100), IMAGES)
    with pytest.raises(UserError, match="use dataset=imagenet"):
        check(dataset(names=imagenet_wnids()[50:60]), classifier(1000), IMAGES)


def test_another_order_of_the_same_classes_is_refused() -> None:
    moved = (*CIFAR10[5:], *CIFAR10[:5])
    with pytest.raises(UserError, match=r"another order .*'dog' is label 0 here but class 5 there"):
        check(dataset(names=moved), classifier(names=CIFAR10), IMAGES)
    as_strings = tuple(sorted(map(str, range(12))))
    with pytest.raises(UserError, match=r"another order .*'10' is label 2 here but class 10 there"):
        check(dataset(names=as_strings), classifier(12, names=tuple(map(str, range(12)))), IMAGES)
    caffe = tuple(np.random.default_rng(0).permutation(imagenet_names()))
    with pytest.raises(UserError, match="another order"):
        check(dataset(names=imagenet_names()), classifier(1000, names=caffe), IMAGES)


def test_other_words_for_the_same_classes_pass() -> None:
    torchvisions = tuple(ResNet50_Weights.DEFAULT.meta["categories"])
    check(dataset(names=imagenet_names()), classifier(1000, names=torchvisions), IMAGES)
    check(dataset(names=CIFAR10), classifier(names=tuple(name.title() for name in CIFAR10)), IMAGES)
    check(dataset(names=tuple("0123456789")), classifier(names=CIFAR10), IMAGES)


def test_the_origin_opens_every_sentence() -> None:
    there = replace(dataset(), origin="dataset.root=/there")
    with pytest.raises(UserError, match=r"^dataset\.root=/there: "):
        check(there, classifier(5), IMAGES)
