"""The networks of the benchmark, each with images as they come: bundled ones always, CIFAR's where they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from robusteval.classifier import Normalised, Preprocessing
from robusteval.datasets.mnist_5k import Mnist5k
from robusteval.models.bundled import Bundled

_CIFAR = {"resnet2b": "resnet2b.pth", "resnet32": "resnet32-d509ac18.th"}


@dataclass(frozen=True, kw_only=True)
class Net:
    """A network from [0, 1] to logits, in eval mode, with images [n, C, H, W] and labels [n]; a few it gets wrong."""

    name: str
    module: nn.Module
    images: Tensor
    labels: Tensor

    def right(self, n: int) -> "Net":
        """Return the network with the first ``n`` images that it gets right."""
        with torch.no_grad():
            at = (self.module(self.images).argmax(1) == self.labels).nonzero()[:n, 0]
        return replace(self, images=self.images[at], labels=self.labels[at])

    def on(self, device: str) -> "Net":
        """Return the network with its images on a device."""
        module, images, labels = (each.to(device) for each in (self.module, self.images, self.labels))
        return replace(self, module=module, images=images, labels=labels)


class Plain(nn.Module):
    """A residual block without BatchNorm, with a projection where it changes shape (VNN-COMP's ResNet-2B)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1)
        self.shortcut = nn.Identity() if inside == outside else nn.Conv2d(inside, outside, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class Padded(nn.Module):
    """A residual block with BatchNorm whose shortcut drops pixels and pads channels (He et al. 2016, option A)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside)
        self.conv2, self.bn2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside)
        self.stride, self.more = stride, (outside - inside) // 2

    def forward(self, x: Tensor) -> Tensor:
        short = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + short)


def resnet2b() -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), Plain(8, 16, 2), Plain(16, 16, 1), nn.Flatten(),
        nn.Linear(1024, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    return Normalised(network, (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))


def resnet32() -> nn.Module:
    widths = [(16, 16, 1)] * 5 + [(16, 32, 2)] + [(32, 32, 1)] * 4 + [(32, 64, 2)] + [(64, 64, 1)] * 4
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *(Padded(*width) for width in widths),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    return Normalised(network, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


BUILD: Mapping[str, Callable[[], nn.Module]] = {"resnet2b": resnet2b, "resnet32": resnet32}


def lacking(name: str, data: Path) -> Path | None:
    """Return the file that a network needs and that is not there; None where nothing is lacking."""
    if name not in _CIFAR:
        return None
    files = (data / "cifar10" / _CIFAR[name], data / "cifar10" / "X_sdp.npy", data / "cifar10" / "y_sdp.npy")
    return next((path for path in files if not path.is_file()), None)


def load(name: str, n: int, data: Path) -> Net:
    """Return a network with at most ``n`` images, spread over the classes; those of CIFAR beyond 200 are JPEGs."""
    if name in _CIFAR:
        module = _filled(BUILD[name](), data / "cifar10" / _CIFAR[name])
        images = torch.from_numpy(np.load(data / "cifar10" / "X_sdp.npy")).permute(0, 3, 1, 2).contiguous()
        labels = torch.from_numpy(np.load(data / "cifar10" / "y_sdp.npy")).long()
        if n > len(images):
            more, theirs = _jpegs(data / "cifar10" / "jpeg-test", n - len(images))
            images, labels = torch.cat([images, more]), torch.cat([labels, theirs])
    else:
        module = Bundled(name=name).load().module  # pyright: ignore[reportArgumentType]
        found = Mnist5k().load(Preprocessing(), seed=0)
        spread = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[:n].numpy()
        images, labels = found.images(spread), torch.from_numpy(found.labels[spread])
    return Net(name=name, module=module.eval(), images=images[:n], labels=labels[:n])


def _jpegs(folder: Path, n: int) -> tuple[Tensor, Tensor]:
    """Return at most ``n`` images [., 3, 32, 32] with labels, one of each class in turn: CLASS/0000.jpg, ..."""
    paths = sorted(folder.glob("*/*.jpg"), key=lambda path: (path.name, path.parent.name))[:n]
    classes = sorted({path.parent.name for path in paths})
    if not paths:
        return torch.empty(0, 3, 32, 32), torch.empty(0, dtype=torch.long)
    pictures = np.stack([np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255 for path in paths])
    labels = torch.tensor([classes.index(path.parent.name) for path in paths])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), labels


def _filled(module: nn.Module, path: Path) -> nn.Module:
    """Fill a network with a published state, tensor by tensor in order: its names are others than here."""
    found = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    state = found[0] if isinstance(found, list) else found
    own = module.state_dict()
    # Of BatchNorm the published files count no batches.
    names = [name for name in own if not name.endswith("num_batches_tracked")]
    values = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
    if [own[name].shape for name in names] != [value.shape for value in values]:
        raise ValueError(f"{path} does not hold the weights of {type(module).__name__} in the order that is expected")
    module.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    return module
