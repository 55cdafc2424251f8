"""Recorded passes: what serves, what falls back, and whose memory it is. CUDA's own recordings are in test_gpu.py."""

import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks.base import Query
from robusteval.closed_form import small_convnet
from robusteval.engine.graphs import Graphed, replayed, without_recordings
from robusteval.engine.passes import Passes, frozen
from robusteval.engine.search import Path


class SameMemory:
    """A recording as CUDA's are: everything it returns lies where the next call will write."""

    made = 0

    def __init__(self, network: nn.Module, points: Tensor, gradient: bool) -> None:
        SameMemory.made += 1
        self.network, self.points = network, points.clone().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            self.logits = network(self.points.clone())
        self.out, self.gradient = torch.empty_like(self.logits.detach()), torch.empty_like(points)

    def forward(self, points: Tensor) -> Tensor:
        with torch.no_grad():
            self.points.copy_(points)
        with torch.set_grad_enabled(self.points.requires_grad):
            self.logits = self.network(self.points.clone())
        return self.out.copy_(self.logits.detach())

    def backward(self, slope: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(self.logits, self.points, slope, retain_graph=True)
        return self.gradient.copy_(gradient)


class Frozen(SameMemory):
    """What a recording gives where the network's answer hangs on something that is not in it."""

    def forward(self, points: Tensor) -> Tensor:
        return self.out.copy_(self.logits.detach())


class WrongGradient(SameMemory):
    def backward(self, slope: Tensor) -> Tensor:
        return super().backward(slope) * 2


def refused(network: nn.Module, points: Tensor, gradient: bool) -> SameMemory:
    raise RuntimeError("operation not permitted when stream is capturing")


def points_of(seed: int, n: int = 16) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def several(logits: Tensor) -> Tensor:
    """Two losses a row, so that the gradient is asked for twice at the same points."""
    return torch.stack([logits[:, 0] - logits[:, 1], logits.logsumexp(1)], 1)


@pytest.mark.parametrize("loss", [None, lambda logits: logits[:, 0], several])
@pytest.mark.parametrize("record", [SameMemory, Frozen, WrongGradient, refused])
def test_answers_are_the_network_s_and_stay(record, loss) -> None:
    network = small_convnet(channels=3)
    with frozen(network):
        due, came = Passes(module=network, batch=64), Passes(module=Graphed(network, record), batch=64)
        queries = [Query(points=points_of(seed, n), loss=loss) for seed, n in ((1, 16), (2, 16), (3, 40), (4, 16))]
        answers = [came.ask(query) for query in queries]
        for query, answer in zip(queries, answers, strict=True):  # the first ones after the last was given
            wanted = due.ask(query)
            assert torch.equal(answer.logits, wanted.logits)
            if loss is not None:
                assert torch.equal(answer.slope, wanted.slope)
                assert torch.equal(answer.value, wanted.value)


def test_one_recording_for_each_shape_with_and_without_gradients() -> None:
    network = small_convnet(channels=3)
    with frozen(network):
        passes, SameMemory.made = Passes(module=Graphed(network, SameMemory), batch=64), 0
        for _ in range(2):
            for n in (16, 32):
                for loss in (None, several):
                    passes.ask(Query(points=points_of(n, n), loss=loss))
        assert SameMemory.made == 4


def test_what_was_refused_is_not_tried_again() -> None:
    tries = []

    def record(network: nn.Module, points: Tensor, gradient: bool) -> SameMemory:
        tries.append(gradient)
        return refused(network, points, gradient)

    network = small_convnet(channels=3)
    with frozen(network):
        passes = Passes(module=Graphed(network, record), batch=64)
        for _ in range(3):
            passes.logits(points_of(0))
    assert tries == [False]


def test_a_gradient_after_another_pass_is_refused() -> None:
    """Its recording no longer knows those points, and a wrong gradient would go unseen."""
    network = small_convnet(channels=3)
    with frozen(network):
        graphed = Graphed(network, SameMemory)
        leaf = points_of(0).requires_grad_()
        early = graphed(leaf).sum()
        graphed(points_of(1).requires_grad_())
        with pytest.raises(RuntimeError, match="overwritten"):
            early.backward()


def test_only_the_path_for_a_gpu_records() -> None:
    network = small_convnet(channels=3)
    elsewhere: list[tuple[str, Path]] = [("cpu", "host"), ("cpu", "device"), ("cuda", "host")]
    for device, path in elsewhere:
        assert replayed(network, torch.device(device), path) is network
    assert isinstance(replayed(network, torch.device("cuda"), "device"), Graphed)


def test_recordings_are_given_up_where_memory_ran_out() -> None:
    network = small_convnet(channels=3)
    with frozen(network):
        graphed = Graphed(network, SameMemory)
        graphed(points_of(0))
        SameMemory.made = 0
        fresh = without_recordings(graphed)
        assert fresh is not graphed
        fresh(points_of(0))
        assert SameMemory.made == 1
    assert without_recordings(network) is network
