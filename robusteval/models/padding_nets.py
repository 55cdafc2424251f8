"""Networks whose padding is a choice: ResNet-20 for CIFAR-10, and a small one for MNIST that trains on one core."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from robusteval.classifier import Normalised

Mode = Literal["zeros", "reflect", "replicate", "circular", "nopad"]

# Of CIFAR-10's training images, as the published networks were given.
CIFAR10_MEAN = (0.49139968, 0.48215841, 0.44653091)
CIFAR10_SD = (0.24703223, 0.24348513, 0.26158784)


def mnist(mode: Mode, kernel: int) -> nn.Module:
    """Return the small network with fresh weights: images [n, 1, 28, 28] in [0, 1] to logits [n, 10].

    Four convolutions, the first two of stride 2, and the mean over what is left of the image: padding is felt
    in all four, and nothing behind them knows where a feature was. 16 698 parameters with kernels of 3.
    """
    return nn.Sequential(
        _convolution(1, 16, kernel, 2, mode),
        nn.ReLU(),
        _convolution(16, 16, kernel, 2, mode),
        nn.ReLU(),
        _convolution(16, 32, kernel, 1, mode),
        nn.ReLU(),
        _convolution(32, 32, kernel, 1, mode),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def file_name(network: str, mode: Mode, kernel: int, *, adversarial: bool) -> str:
    """Return what the files of a trained network are called, such as mnist_padding_reflect_at."""
    size = "" if kernel == 3 else f"_k{kernel}"
    return f"{network}_{mode}{size}{'_at' if adversarial else ''}"


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, mode: Mode, *, bias: bool = True) -> nn.Conv2d:
    if mode == "nopad":
        return nn.Conv2d(inputs, outputs, kernel, stride, bias=bias)
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, padding_mode=mode, bias=bias)


class Block(nn.Module):
    """Two convolutions with BatchNorm around a shortcut.

    Without padding the two lose k - 1 pixels on each side; their sum's zeros are put back behind them, as published.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int, mode: Mode) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, outputs, kernel, stride, mode, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _convolution(outputs, outputs, kernel, 1, mode, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = self.shortcut(x)
        lost = shortcut.shape[-1] - out.shape[-1]
        if lost:
            out = F.pad(out, (lost - lost // 2, lost // 2) * 2)  # the odd one in front
        return F.relu(out + shortcut)


class ResNet20(nn.Module):
    """ResNet-20 for images of 32 pixels (He et al. 2016, https://arxiv.org/abs/1512.03385, section 4.2), with a
    convolution in the shortcuts that change the size, as in the networks of Gavrikov & Keuper 2023
    (https://arxiv.org/abs/2308.06612).
    """

    def __init__(self, mode: Mode, kernel: int) -> None:
        super().__init__()
        width = 16
        self.conv = _convolution(3, width, kernel, 1, mode, bias=False)
        self.bn = nn.BatchNorm2d(width)
        made: list[nn.Module] = []
        for outputs in (16, 32, 64):
            for place in range(3):
                made.append(Block(width, outputs, 2 if outputs > 16 and not place else 1, kernel, mode))
                width = outputs
        self.blocks = nn.Sequential(*made)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.fc(out.mean((2, 3)))


def cifar10(mode: Mode, kernel: int) -> nn.Module:
    """Return ResNet-20 with fresh weights, its normalisation inside: images [n, 3, 32, 32] in [0, 1] to logits."""
    return Normalised(ResNet20(mode, kernel), CIFAR10_MEAN, CIFAR10_SD)


def refusal(dataset: str, mode: Mode, kernel: int) -> str | None:
    """Return in a sentence why a network cannot be: without padding large kernels leave nothing of a small image."""
    if mode != "nopad" or kernel == 3:
        return None
    return (
        f"mode=nopad with kernel={kernel}: without padding the feature maps of {dataset} become smaller than the "
        "kernel; use kernel=3, or a mode that pads"
    )
