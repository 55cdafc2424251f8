"""The engine on a GPU, for whoever has one: pytest -m gpu -n 0. What makes sense on the CPU is tried there too."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robusteval import registry
from robusteval.closed_form import small_convnet
from robusteval.engine import iteration
from robusteval.engine.board import Board
from robusteval.engine.direct import search
from robusteval.engine.recording import Function, Recorder, Result
from robusteval.engine.transfer import to_device, to_host
from robusteval.threat import ThreatModel
from tests.engine.asking import Asks

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


def attacked(
    name: str, norm: Any, options: dict[str, Any], device: str, path: Any, recorder: Recorder | None = None
) -> Board:
    attack = registry.lookup(registry.ATTACKS, "attack.method", name)(**options)
    network = small_convnet(channels=3).to(device)
    images = torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(11)).to(device)
    with torch.no_grad():
        labels = network(images).argmax(1)
    return search(
        attack, network, images, labels, ThreatModel(norm=norm, eps=EPS[norm]), slots=32, path=path, recorder=recorder
    )


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
    iterate = iteration._iterate
    attacked(name, norm, options, "cuda", "device")  # tables are made once, kernels are loaded

    def watched(*args: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return iterate(*args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(iteration, "_iterate", watched)
    attacked(name, norm, options, "cuda", "device", Recorder(refused))  # a trial of recordings asks


def refused(function: Function, arguments: Sequence[Tensor]) -> Function:
    raise RuntimeError("nothing is recorded")


def bits(board: Board) -> dict[str, bytes]:
    return {name: value.cpu().numpy().tobytes() for name, value in vars(board).items() if isinstance(value, Tensor)}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize(("name", "norm", "options"), SEARCHES)
def test_recorded_iterations_give_the_same_bits_on_a_gpu(name: str, norm: str, options: dict[str, Any]) -> None:
    recorder = Recorder()
    plain = attacked(name, norm, options, "cuda", "device", Recorder(refused))
    assert bits(attacked(name, norm, options, "cuda", "device", recorder)) == bits(plain)
    assert bits(attacked(name, norm, options, "cuda", "device", recorder)) == bits(plain)  # by recordings alone
    assert (recorder.served > 0) == (norm != "l1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_network_that_asks_runs_as_it_is_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = attacked("apgd", "linf", {"steps": 20}, "cuda", "device", Recorder(refused))
    build = small_convnet
    monkeypatch.setitem(globals(), "small_convnet", lambda **options: Asks(build(**options)))
    recorder = Recorder()
    assert bits(attacked("apgd", "linf", {"steps": 20}, "cuda", "device", recorder)) == bits(plain)
    assert recorder.served == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_recording_that_fails_leaves_nothing_behind() -> None:
    """Torch 2.11 leaves the random generator, and the stream, in a recording that failed. It is the last one."""
    recorder = Recorder(after=0)

    def waits(tensors: Sequence[Tensor]) -> Result:
        torch.cuda.synchronize()
        return [tensors[0] + 1], [], None

    def adds(tensors: Sequence[Tensor]) -> Result:
        return [tensors[0] + 1], [tensors[0] * 2], None

    arguments, stream = [torch.ones(3, device="cuda")], torch.cuda.current_stream()
    assert recorder.find("waits", waits, arguments) is None
    assert torch.cuda.current_stream() == stream
    assert torch.rand(3, device="cuda").isfinite().all()
    assert recorder.find("adds", adds, arguments) is None
