"""The small network behind the bundled MNIST weights: 166 406 parameters, fast on one core."""

from torch import nn

INPUT_SIZE = (1, 28, 28)
CLASSES = 10


def network() -> nn.Module:
    """Return the network with fresh weights: images [n, 1, 28, 28] in [0, 1] to logits [n, 10].

    Two strided convolutions and two linear layers, without pooling, BatchNorm or dropout: nothing hides its gradient,
    and train and eval mode are the same function. The shape is that of the small MNIST net of Wong and Kolter 2018
    (https://arxiv.org/abs/1711.00851).
    """
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 100),
        nn.ReLU(),
        nn.Linear(100, CLASSES),
    )
