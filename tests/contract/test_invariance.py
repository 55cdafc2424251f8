"""The same bits at any number of slots, in any order, beside any neighbours; the same seed the same bytes.

Few slots are tried in batches as fine as the network allows, against batches of 16.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robusteval.closed_form import small_convnet
from robusteval.engine import selftest
from robusteval.engine.board import Board
from robusteval.engine.direct import search
from robusteval.engine.passes import Passes
from robusteval.models.bundled import Bundled

SLOTS = (7, 64)
FEW = [1, 2, 3]  # for a single slot, whose passes are padded several times over


def state_of(board: Board) -> dict[str, Tensor]:
    """Return everything of a board that ends in the evidence."""
    found = {name: value for name, value in vars(board).items() if isinstance(value, Tensor)}
    if board.survey is not None:
        found |= {"prediction": board.survey.prediction, "survey": board.survey.broken, **board.survey.statistics}
    return found


def difference(a: Board, b: Board) -> list[str]:
    one, other = state_of(a), state_of(b)
    assert set(one) == set(other)
    return [name for name in one if one[name].numpy().tobytes() != other[name].numpy().tobytes()]


@pytest.fixture(scope="module")
def nets() -> dict[str, tuple[nn.Module, Tensor, Tensor, int]]:
    """A random convolutional net with BatchNorm and the bundled one, with more images than a batch has, some wrong.

    And how finely their batches may be padded.
    """
    numbers = torch.Generator().manual_seed(2)
    convnet = small_convnet(classes=5, channels=3)
    small = torch.rand(20, 3, 8, 8, generator=numbers)
    bundled = Bundled(name="mnist_cnn").load().module.eval()
    strokes = (torch.rand(20, 1, 7, 7, generator=numbers) < 0.4).float()
    digits = nn.functional.interpolate(strokes, size=28, mode="bilinear").clamp(0, 1)
    found = {}
    for name, network, images in (("convnet", convnet, small), ("mnist_cnn", bundled, digits)):
        with torch.no_grad():
            logits = network(images)
        labels = logits.argmax(1)
        labels[::7] = (labels[::7] + 1) % logits.shape[1]
        fine = selftest.quantum(Passes(module=network, batch=64), images)
        found[name] = (network, images, labels, fine)
    return found


@pytest.mark.parametrize(("net", "stop"), [("convnet", "first"), ("convnet", "never"), ("mnist_cnn", "first")])
def test_slots_and_order_change_no_bit(case: Any, net: str, stop: Any, nets: dict[str, Any]) -> None:
    network, images, labels, fine = nets[net]
    survey = case.attack.columns() is not None
    if (net, stop) != ("convnet", "first") and not case.leads:
        pytest.skip("the larger network and the whole budget are tried with each attack's first options")
    if survey and stop == "never":
        pytest.skip("a survey stops at nothing anyway")
    if case.attack.parametric and net == "mnist_cnn":
        pytest.skip("one network is enough for attacks that only look at predictions")
    cascade = len(case.attack.stages(case.norm)) > 1
    if cascade and net == "mnist_cnn":
        pytest.skip("each stage has cases of its own")
    if survey or cascade:
        images, labels = images[:9], labels[:9]
    n = len(images)
    reference = search(case.attack, network, images, labels, case.threat, slots=16, stop=stop)
    if case.attack.method == "pgd" and net == "convnet":
        assert reference.broken.any(), "a test in which nothing happens proves nothing"
    for slots in SLOTS if case.leads and not cascade and stop == "first" else SLOTS[:1]:
        board = search(case.attack, network, images, labels, case.threat, slots=slots, stop=stop)
        assert difference(board, reference) == [], slots
    few = FEW if case.leads else FEW[:1]
    single = search(case.attack, network, images, labels, case.threat, slots=1, stop=stop, order=few, quantum=fine)
    for name, value in state_of(single).items():
        assert value[few].numpy().tobytes() == state_of(reference)[name][few].numpy().tobytes(), name
    order = torch.randperm(n, generator=torch.Generator().manual_seed(3))
    board = search(
        case.attack,
        network,
        images[order],
        labels[order],
        case.threat,
        slots=7,
        stop=stop,
        ids=order.tolist(),
        quantum=fine,
    )
    back = order.argsort()
    for name, value in state_of(board).items():
        assert value[back].numpy().tobytes() == state_of(reference)[name].numpy().tobytes(), name


@pytest.mark.parametrize("stop", ["first", "never"])
def test_neighbours_change_no_bit(case: Any, stop: Any, nets: dict[str, Any]) -> None:
    network, images, labels, fine = nets["convnet"]
    few = [3, 9, 12]
    if stop == "never" and (case.attack.columns() is not None or not case.leads):
        pytest.skip("a survey stops at nothing anyway; the whole budget is tried with each attack's first options")
    together = search(case.attack, network, images, labels, case.threat, stop=stop)
    alone = search(case.attack, network, images[few], labels[few], case.threat, stop=stop, ids=few, quantum=fine)
    for name, value in state_of(alone).items():
        assert value.numpy().tobytes() == state_of(together)[name][few].numpy().tobytes(), name


def test_the_seed_decides_everything_that_is_random(case: Any, nets: dict[str, Any]) -> None:
    network, images, labels, _ = nets["convnet"]
    if case.attack.own_set and case.norm != "unbounded":
        pytest.skip("hardly any of its images lies in the ball, so none may move")
    if case.attack.columns() is not None:
        images, labels = images[:4], labels[:4]
    images, labels = images[:8], labels[:8]

    def run(seed: int) -> Board:
        return search(case.attack, network, images, labels, case.threat, seed=seed, stop="never")

    first = run(11)
    assert difference(run(11), first) == []
    other = difference(run(12), first)
    if case.random:
        assert "point" in other
    else:
        assert other == []


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_long_rows_do_not_depend_on_threads_and_slots(norm: Any) -> None:
    """torch splits a single row of more than 32768 values among threads; sums of norms must not move by it."""
    from robusteval.attacks.noise import Noise
    from robusteval.threat import ThreatModel

    network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(23 * 23, 5))
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    images = torch.rand(2, 1, 184, 184, generator=generator)
    labels = network(images).argmax(1)
    threat = ThreatModel(norm=norm, eps={"linf": 0.1, "l2": 2.0, "l1": 1500.0}[norm])
    torch.set_num_threads(1)
    reference = search(Noise(queries=3), network, images, labels, threat, slots=16, stop="never")
    assert reference.moved.any()
    torch.set_num_threads(2)
    for slots in (1, 2, 16):
        board = search(Noise(queries=3), network, images, labels, threat, slots=slots, stop="never")
        assert difference(board, reference) == [], slots
