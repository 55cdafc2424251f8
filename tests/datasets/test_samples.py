"""The pictures that foolbox ships, against foolbox's own way of reading them."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robusteval.classifier import Preprocessing
from robusteval.datasets import samples
from robusteval.datasets.samples import Samples
from robusteval.errors import UserError

FOLDER = samples._folder()
SHAPES = {
    "cifar10_samples": (20, 3, 32, 32),
    "cifar100_samples": (20, 3, 32, 32),
    "fashion_mnist_samples": (20, 1, 28, 28),
    "imagenet_samples": (20, 3, 224, 224),
    "mnist_samples": (20, 1, 28, 28),
}
PREFIXES = {
    "cifar10_samples": "cifar10_",
    "cifar100_samples": "cifar100_",
    "fashion_mnist_samples": "fashionMNIST_",
    "imagenet_samples": "imagenet_",
    "mnist_samples": "mnist_",
}
needs_foolbox = pytest.mark.skipif(FOLDER is None, reason="foolbox is not installed")


@needs_foolbox
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_images_and_labels_are_those_of_the_files(name: Any) -> None:
    assert FOLDER is not None
    source = Samples(name=name)
    assert source.missing() is None
    data = source.load(Preprocessing(), seed=0)
    images = data.images(range(20))
    assert images.shape == SHAPES[name]
    files = sorted(path for path in FOLDER.iterdir() if path.name.startswith(PREFIXES[name]))
    assert data.ids.tolist() == list(range(20))
    assert data.labels.tolist() == [int(path.stem.rsplit("_", 1)[1]) for path in files]
    assert data.class_names is not None
    assert len(data.class_names) == {"cifar100_samples": 100, "imagenet_samples": 1000}.get(name, 10)
    if name != "imagenet_samples":
        for file, image in zip(files, images, strict=True):
            with Image.open(file) as opened:
                pixels = np.asarray(opened).reshape(*image.shape[1:], image.shape[0])
            assert torch.equal(image, torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(255)))


@needs_foolbox
def test_class_names_fit_the_pictures() -> None:
    """The names of the first pictures, as anybody sees them."""

    def first(name: Any) -> list[str]:
        data = Samples(name=name).load(Preprocessing(), 0)
        assert data.class_names is not None
        return [data.class_names[label] for label in data.labels[:3]]

    assert first("imagenet_samples") == ["bull mastiff", "folding chair", "beaker"]
    assert first("cifar10_samples") == ["cat", "ship", "ship"]
    assert first("cifar100_samples") == ["mountain", "forest", "seal"]
    assert first("mnist_samples") == ["7", "2", "1"]
    assert first("fashion_mnist_samples") == ["Ankle boot", "Pullover", "Trouser"]


@needs_foolbox
def test_only_imagenet_is_resized() -> None:
    preprocessing = Preprocessing(resize=40, crop=(36, 36))
    assert Samples(name="imagenet_samples", n=2).load(preprocessing, 0).images([0]).shape == (1, 3, 36, 36)
    assert Samples(name="cifar10_samples", n=2).load(preprocessing, 0).images([0]).shape == (1, 3, 32, 32)


@needs_foolbox
def test_a_subset_keeps_its_ids() -> None:
    whole = Samples(name="cifar10_samples").load(Preprocessing(), 0)
    part = Samples(name="cifar10_samples", n=6).load(Preprocessing(), 5)
    assert torch.equal(part.images(range(6)), whole.images(part.ids))
    with pytest.raises(UserError, match=r"dataset\.n=21 is more than the 20"):
        Samples(name="cifar10_samples", n=21).load(Preprocessing(), 0)


def test_without_foolbox_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "find_spec", lambda name: None)
    assert "robusteval[demo]" in (Samples(name="mnist_samples").missing() or "")
    with pytest.raises(UserError, match="foolbox, which is not installed"):
        Samples(name="mnist_samples").load(Preprocessing(), 0)
