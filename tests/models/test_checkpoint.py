"""The user's own weights: of an architecture by name, or of a network of their own; published accuracies come back."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models

from robusteval.errors import UserError
from robusteval.models.checkpoint import Checkpoint

SHARED = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


def test_an_architecture_of_torchvision(tmp_path):
    network = models.resnet18(num_classes=7).eval()
    path = tmp_path / "w.safetensors"
    save_file(network.state_dict(), path)
    options = Checkpoint(name="resnet18", weights=str(path), mean=(0.5,) * 3, sd=(0.25,) * 3, input_size=(3, 32, 32))
    assert options.missing() is None
    classifier = options.load()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(classifier.module(images), network((images - 0.5) * 4))
    assert (classifier.classes, classifier.input_size) == (7, (3, 32, 32))
    assert classifier.source == f"checkpoint w.safetensors sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.mark.parametrize(
    ("name", "network", "classes"),
    [
        ("squeezenet1_1", lambda: models.squeezenet1_1(num_classes=5), 5),
        ("torchvision/mobilenet_v3_small", lambda: models.mobilenet_v3_small(num_classes=4), 4),
        ("test_resnet", lambda: timm.create_model("test_resnet", num_classes=6), 6),
        ("timm/test_vit", lambda: timm.create_model("test_vit", num_classes=1000), 1000),
        ("timm/resnet10t", lambda: timm.create_model("resnet10t", num_classes=3), 3),
    ],
)
def test_classes_are_read_off_the_last_layer(tmp_path, name, network, classes):
    wanted = network().eval()
    torch.save({"model": wanted.state_dict(), "epoch": 1}, tmp_path / "w.pt")
    classifier = Checkpoint(name=name, weights=str(tmp_path / "w.pt")).load()
    assert classifier.classes == classes
    assert classifier.input_size is not None
    images = torch.rand(1, *classifier.input_size)
    with torch.no_grad():
        torch.testing.assert_close(classifier.module(images), wanted(images))


def test_grey_images_for_timm(tmp_path):
    save_file(timm.create_model("test_resnet", num_classes=3, in_chans=1).state_dict(), tmp_path / "w.safetensors")
    options = Checkpoint(name="test_resnet", weights=str(tmp_path / "w.safetensors"), input_size=(1, 40, 40))
    assert options.load().classes == 3


def test_a_prefix_is_cut(tmp_path):
    state = {f"module.{name}": value for name, value in models.squeezenet1_1(num_classes=5).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    options = Checkpoint(name="squeezenet1_1", weights=str(tmp_path / "w.pt"))
    with pytest.raises(UserError, match=r"model\.prefix=module\."):
        options.load()
    assert dataclasses.replace(options, prefix="module.").load().classes == 5


def test_names_of_the_other_library_are_recognised(tmp_path):
    save_file(timm.create_model("efficientnet_b0", num_classes=3).state_dict(), tmp_path / "w.safetensors")
    options = {"weights": str(tmp_path / "w.safetensors"), "input_size": (3, 64, 64)}
    with pytest.raises(UserError, match=r"set model\.name=timm/efficientnet_b0"):
        Checkpoint(name="efficientnet_b0", **options).load()
    assert Checkpoint(name="timm/efficientnet_b0", **options).load().classes == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, r"needs model\.weights="),
        ({"weights": "none.pt", "name": "resnet18"}, r"there is no file .*none\.pt"),
        ({"weights": "w.pt"}, r"needs model\.name=ARCHITECTURE"),
        ({"weights": "w.pt", "name": "resnet81"}, r"model\.name=resnet81 is no architecture.*did you mean 'resnet18'"),
        ({"weights": "w.pt", "name": "keras/resnet18"}, "'keras' is neither torchvision nor timm"),
        ({"weights": "w.pt", "name": "torchvision/test_resnet"}, "is not a classifier of torchvision"),
        ({"weights": "w.pt", "name": "timm/nothing_like_it"}, "is not a name of timm"),
        ({"weights": "w.pt", "name": "resnet18"}, r"w\.pt does not fit the network: it lacks"),
        (
            {"weights": "w.pt", "name": "squeezenet1_1", "classes": 9},
            r"\[5, 512, 1, 1\] where the network has \[9, 512",
        ),
        ({"weights": "w.pt", "name": "squeezenet1_1", "input_size": (1, 64, 64)}, r"model\.input_size=\[1, 64, 64\]"),
        ({"weights": "w.pt", "entry": "none.py:build"}, r"no file .*none\.py"),
        ({"weights": "nan.pt", "name": "squeezenet1_1"}, "NaN or infinite"),
        ({"weights": "page.pt", "name": "squeezenet1_1"}, "HTML page"),
    ],
)
def test_what_does_not_serve_is_told(tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    state = models.squeezenet1_1(num_classes=5).state_dict()
    torch.save(state, tmp_path / "w.pt")
    torch.save({**state, "classifier.1.bias": torch.full((5,), torch.nan)}, tmp_path / "nan.pt")
    (tmp_path / "page.pt").write_text("<!DOCTYPE html>")
    with pytest.raises(UserError, match=says) as caught:
        Checkpoint(**options).load()
    assert "\n" not in str(caught.value)


RESNET2B = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, planes_in, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride, 1)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1)
        self.shortcut = nn.Sequential(nn.Conv2d(planes_in, planes, 1, stride)) if stride > 1 else nn.Sequential()

    def forward(self, x):
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.shortcut(x))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer1 = nn.Sequential(Block(8, 16, 2), Block(16, 16, 1))
        self.linear1, self.linear2 = nn.Linear(1024, 100), nn.Linear(100, 10)

    def forward(self, x):
        return self.linear2(torch.relu(self.linear1(self.layer1(torch.relu(self.conv1(x))).flatten(1))))
"""

RESNET32 = """
import torch
from torch import nn
from torch.nn import functional as F

class Block(nn.Module):
    def __init__(self, planes_in, planes):
        super().__init__()
        stride = planes // planes_in
        self.conv1, self.bn1 = nn.Conv2d(planes_in, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False), nn.BatchNorm2d(planes)
        self.grow = planes // 4 if stride > 1 else 0

    def forward(self, x):
        kept = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.grow, self.grow)) if self.grow else x
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + kept)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for number, (planes_in, planes) in enumerate([(16, 16), (16, 32), (32, 64)], 1):
            blocks = [Block(planes_in, planes)] + [Block(planes, planes) for _ in range(4)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))
"""


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared CIFAR-10 networks are not on this machine")
@pytest.mark.parametrize(
    ("code", "file", "options", "accuracy"),
    [
        (RESNET2B, "resnet2b.pth", {"mean": (0.4914, 0.4822, 0.4465), "sd": (0.2471, 0.2435, 0.2616)}, 0.740),
        (
            RESNET32,
            "resnet32-d509ac18.th",
            {"mean": (0.485, 0.456, 0.406), "sd": (0.229, 0.224, 0.225), "prefix": "module."},
            0.915,
        ),
    ],
)
def test_known_accuracies_come_back(tmp_path, code, file, options, accuracy):
    (tmp_path / "net.py").write_text(code + "\ndef build():\n    return Net()\n")
    classifier = Checkpoint(
        entry=f"{tmp_path / 'net.py'}:build", weights=str(SHARED / file), input_size=(3, 32, 32), **options
    ).load()
    images = torch.from_numpy(np.load(SHARED / "X_sdp.npy")).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.load(SHARED / "y_sdp.npy"))
    with torch.inference_mode():
        assert (classifier.module(images).argmax(1) == labels).double().mean().item() == pytest.approx(accuracy)
