"""The engine on a GPU, for whoever has one: pytest -m gpu -n 0. What makes sense on the CPU is tried there too."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robusteval import registry
from robusteval.attacks.base import Query
from robusteval.closed_form import small_convnet
from robusteval.engine import device_path
from robusteval.engine.board import Board
from robusteval.engine.direct import search
from robusteval.engine.graphs import Graphed
from robusteval.engine.passes import Passes, frozen
from robusteval.engine.transfer import to_device, to_host
from robusteval.threat import ThreatModel

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]
SEARCHES = [
    ("pgd", "linf", {"steps": 20}),
    ("apgd", "linf", {"steps": 20}),
    ("apgd", "l2", {"steps": 20}),
    ("apgd", "l1", {"steps": 20}),
    ("fab", "linf", {"steps": 10, "n_targets": 2}),
    ("square", "linf", {"queries": 30}),
    ("square", "l2", {"queries": 30}),
    ("square", "l1", {"queries": 30}),
    ("fmn", "l2", {"steps": 20, "n_targets": 1}),
]
EPS = {"linf": 0.1, "l2": 0.6, "l1": 5.0}
N = 48


def attacked(name: str, norm: Any, options: dict[str, Any], device: str, path: Any) -> Board:
    attack = registry.lookup(registry.ATTACKS, "attack.method", name)(**options)
    network = small_convnet(channels=3).to(device)
    images = torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(11)).to(device)
    with torch.no_grad():
        labels = network(images).argmax(1)
    return search(attack, network, images, labels, ThreatModel(norm=norm, eps=EPS[norm]), slots=32, path=path)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "norm", "options"), SEARCHES)
def test_both_paths_decide_alike_wherever_they_run(name: str, norm: str, options: dict[str, Any], device: str) -> None:
    """On a GPU bits may move with the size of the batch, so that an image on the very boundary may fall elsewhere."""
    reference = attacked(name, norm, options, "cpu", "host").broken
    for path in ("host", "device"):
        board = attacked(name, norm, options, device, path)
        differing = int((board.broken.cpu() != reference).sum())
        assert differing <= (0 if device == "cpu" else 1), path


@pytest.mark.parametrize("device", DEVICES)
def test_many_small_copies_arrive_whole(device: str) -> None:
    """Pinned memory goes round: what is there at the end has to be what was sent each time."""
    sent = [np.random.default_rng(number).random(257, dtype=np.float32) for number in range(200)]
    there = [to_device(values.copy(), torch.device(device)) for values in sent]
    assert all(np.array_equal(to_host(values), due) for values, due in zip(there, sent, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize(
    ("name", "norm", "options"), [one for one in SEARCHES if one[1] != "l1"]
)  # L1 asks now and then
def test_iterations_never_wait_for_the_gpu(
    name: str, norm: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CUDA itself counts: it raises where the host would wait."""
    iterate = device_path._iterate
    attacked(name, norm, options, "cuda", "device")  # tables are made once, kernels are loaded

    def watched(*args: Any) -> Tensor:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return iterate(*args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(device_path, "_iterate", watched)
    attacked(name, norm, options, "cuda", "device")


class Asks(nn.Module):
    """A network that wants to know a number on the way, which cannot be recorded."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x if float(x.sum()) > 0 else x + 1)


def two_losses(logits: Tensor) -> Tensor:
    return torch.stack([logits[:, 0] - logits[:, 1], logits.logsumexp(1)], 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("loss", [None, two_losses])
def test_replayed_passes_have_the_bits_of_the_network(loss: Any, asks: bool) -> None:
    network = small_convnet(channels=3).to("cuda")
    network = Asks(network) if asks else network
    with frozen(network):
        graphed = Graphed(network)
        due, came = Passes(module=network, batch=64), Passes(module=graphed, batch=64)
        queries = [
            Query(points=torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(n)).to("cuda"), loss=loss)
            for n in (64, 16, 48, 64)
        ]
        answers = [came.ask(query) for query in queries]
        for query, answer in zip(queries, answers, strict=True):
            wanted = due.ask(query)
            assert torch.equal(answer.logits, wanted.logits)
            if loss is not None:
                assert torch.equal(answer.slope, wanted.slope)
    assert {recording is None for recording in graphed._recordings.values()} == {asks}
    assert torch.rand(3, device="cuda").isfinite().all()  # the generator goes on after a recording that failed
