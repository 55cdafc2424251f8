"""Networks whose padding is a choice: ResNet-20 for CIFAR-10, and a small one for MNIST that trains on one core."""

from typing import Literal

from torch import nn

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


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, mode: Mode, *, bias: bool = True) -> nn.Conv2d:
    if mode == "nopad":
        return nn.Conv2d(inputs, outputs, kernel, stride, bias=bias)
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, padding_mode=mode, bias=bias)
