"""Recorded iterations: the bits of those that run, for every attack, and what cannot be recorded runs as it is.

CUDA's own recordings are in test_gpu.py. Here an iteration is recorded as a list of torch's operations, with all that
makes a graph dangerous: what Python decided is decided once, and every result lies where the next one will be written.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from robusteval import registry
from robusteval.attacks.base import Job, State, Steps
from robusteval.attacks.pgd import PGD
from robusteval.closed_form import small_convnet
from robusteval.engine.board import Board
from robusteval.engine.direct import search
from robusteval.engine.recording import Function, Reads, Recorder, Result, copies, recorder_for
from robusteval.threat import ThreatModel
from tests.engine.asking import Asks


def traced(function: Function, arguments: Sequence[Tensor]) -> Function:
    """Record the operations of a function; fixed memory for what goes in and for what comes out."""
    fixed, shape = copies(arguments), {}

    def flat(tensors: list[Tensor]) -> list[Tensor]:
        carried, kept, shape["facts"] = function(tensors)
        shape["carried"] = len(carried)
        return [*carried, *kept]

    graph = make_fx(flat)(fixed)
    memory: list[Tensor] = []

    def replay(arguments: Sequence[Tensor]) -> Result:
        for into, source in zip(fixed, arguments, strict=True):
            into.copy_(source)
        results = graph(fixed)
        if not memory:
            own = {id(tensor) for tensor in fixed}
            memory.extend(result if id(result) in own else result.clone() for result in results)
        for into, source in zip(memory, results, strict=True):
            into.copy_(source)
        return memory[: shape["carried"]], memory[shape["carried"] :], shape["facts"]

    return replay


def refused(function: Function, arguments: Sequence[Tensor]) -> Function:
    raise RuntimeError("operation not permitted when stream is capturing")


def wrong(function: Function, arguments: Sequence[Tensor]) -> Function:
    """Record what always answers as the first time."""
    carried, kept, facts = function(copies(arguments))
    return lambda _: (carried, kept, facts)


N, STEPS, AFTER = 20, 9, 3
EPS = {"linf": 0.02, "l2": 0.15, "l1": 1.0, "unbounded": None}
RECORDED = [
    ("pgd", "l2", {"steps": STEPS, "n_restarts": 2}),
    ("apgd", "linf", {"steps": STEPS}),
    ("apgd", "linf", {"steps": STEPS, "loss": "targeted_dlr", "n_targets": 2}),
    ("apgd", "l2", {"steps": STEPS, "loss": "dlr"}),
    ("fab", "linf", {"steps": AFTER + 2, "n_targets": 1}),
    ("square", "linf", {"queries": STEPS}),
    ("square", "l2", {"queries": STEPS}),
    ("fmn", "l2", {"steps": STEPS, "targeted": False}),
    ("cw", "l2", {"steps": 6, "searches": 2, "n_targets": 1}),
]
# The nearest point of an L1 ball and a box is a search that asks whether it is at its end; so in Square and FMN.
NOT_RECORDED = [
    ("apgd", "l1", {"steps": STEPS}),
]


def points(seed: int) -> Tensor:
    return torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@functools.cache
def threat_of(norm: Any, eps: float | None) -> ThreatModel:
    """Return one object for one ball, as a session has."""
    return ThreatModel(norm=norm, eps=eps)


def attacked(
    attack: Any,
    norm: Any,
    recorder: Recorder | None,
    network: nn.Module,
    *,
    eps: float | None = None,
    images: Tensor | None = None,
    **more: Any,
) -> Board:
    images = points(3) if images is None else images
    with torch.no_grad():
        labels = network(images).argmax(1)
    threat = threat_of(norm, EPS[norm] if eps is None else eps)
    return search(attack, network, images, labels, threat, slots=16, path="device", recorder=recorder, **more)


def bits(board: Board) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in vars(board).items() if isinstance(value, Tensor)}


@pytest.mark.parametrize(("name", "norm", "options"), RECORDED + NOT_RECORDED)
def test_recorded_iterations_give_the_same_bits(name: str, norm: Any, options: dict[str, Any]) -> None:
    attack = registry.lookup(registry.ATTACKS, "attack.method", name)(**options)
    network, recorder = small_convnet(channels=3), Recorder(traced, AFTER)
    plain = attacked(attack, norm, None, network)
    assert bits(attacked(attack, norm, recorder, network)) == bits(plain)
    if name != "fab":  # a second search goes on with the recordings of the first
        again = attacked(attack, norm, recorder, network, seed=1, stop="never")
        assert bits(again) == bits(attacked(attack, norm, None, network, seed=1, stop="never"))
    assert (recorder.served > 0) == ((name, norm, options) in RECORDED)


@pytest.mark.parametrize("record", [refused, wrong])
def test_what_cannot_be_recorded_runs_as_it_is(record: Any) -> None:
    network, recorder = small_convnet(channels=3), Recorder(record, AFTER)
    attack = registry.lookup(registry.ATTACKS, "attack.method", "apgd")(steps=STEPS)
    assert bits(attacked(attack, "linf", recorder, network)) == bits(attacked(attack, "linf", None, network))
    assert recorder.served == 0


def test_a_network_that_asks_is_not_recorded() -> None:
    network, recorder = Asks(small_convnet(channels=3)), Recorder(traced, AFTER)
    attack = registry.lookup(registry.ATTACKS, "attack.method", "apgd")(steps=STEPS)
    assert bits(attacked(attack, "linf", recorder, network)) == bits(attacked(attack, "linf", None, network))
    assert recorder.served == 0


class Counts(PGD):
    """An attack that keeps a number in Python, which a recording would keep as it was."""

    def iterate(self, state: State) -> Steps:
        state.number = getattr(state, "number", 0) + 1
        done = yield from super().iterate(state)
        state.x = (state.x + 1e-3 * (state.number % 7)).clamp(state.lo, state.hi)
        return done


def test_an_attack_that_counts_in_python_is_not_recorded() -> None:
    network, recorder = small_convnet(channels=3), Recorder(traced, AFTER)
    attack = Counts(steps=STEPS)
    assert bits(attacked(attack, "linf", recorder, network)) == bits(attacked(attack, "linf", None, network))
    assert recorder.served == 0


def test_a_recording_is_of_its_key_and_shapes_alone() -> None:
    recorder = Recorder(traced, AFTER)

    def times(factor: int) -> Function:
        return lambda tensors: ([tensors[0] * factor], [tensors[0] + factor], factor)

    for number in range(9):
        for key, factor in (("two", 2), ("three", 3)):
            for size in (4, 8):
                arguments = [torch.full((size,), float(number))]
                found = recorder.find(key, times(factor), arguments)
                assert (found is None) == (number < AFTER)
                if found is not None:
                    carried, kept, facts = found(arguments)
                    assert carried[0].tolist() == [number * factor] * size
                    assert kept[0].tolist() == [number + factor] * size
                    assert facts == factor
    assert recorder.served == 4


def test_what_is_to_be_kept_is_not_overwritten() -> None:
    recorder, seen = Recorder(traced, AFTER), []
    for number in range(AFTER + 8):
        arguments = [torch.full((3,), float(number))]
        found = recorder.find("", lambda tensors: ([tensors[0] + 1], [tensors[0] * 2], None), arguments)
        if found is not None:
            seen.append((number, found(arguments)[1][0]))
    assert [kept.tolist() for _, kept in seen] == [[2 * number] * 3 for number, _ in seen]
    assert len(seen) == 8


def noisy(tensors: Sequence[Tensor]) -> Result:
    """Count exactly, and add what differs a little each time, as sums in no certain order do."""
    return [tensors[0] + 1], [tensors[1] * 2 + 1e-6 * torch.rand(3)], None


def off_in_float(function: Function, arguments: Sequence[Tensor]) -> Function:
    def recording(tensors: Sequence[Tensor]) -> Result:
        carried, kept, facts = function(tensors)
        return carried, [kept[0] + 1e-3], facts

    return recording


def off_in_count(function: Function, arguments: Sequence[Tensor]) -> Function:
    def recording(tensors: Sequence[Tensor]) -> Result:
        carried, kept, facts = function(tensors)
        return [carried[0] + 1], kept, facts

    return recording


@pytest.mark.parametrize(
    ("record", "serves"), [(lambda function, _: function, 1), (off_in_float, 0), (off_in_count, 0), (wrong, 0)]
)
def test_a_function_with_noise_is_recorded_if_no_more_than_that_differs(record: Any, serves: int) -> None:
    recorder = Recorder(record, AFTER)
    for number in range(AFTER + 1):
        recorder.find("", noisy, [torch.full((2,), number), torch.ones(3)])
    assert recorder.served == serves


class Scaled(PGD):
    """An attack whose state holds a number of its job in Python."""

    def start(self, job: Job) -> State:
        state = super().start(job)
        state.factor = float(job.x.mean())
        return state

    def iterate(self, state: State) -> Steps:
        done = yield from super().iterate(state)
        state.x = (state.x + 0.01 * state.factor).clamp(state.lo, state.hi)
        return done


def test_a_recording_is_of_one_network_attack_threat_and_state() -> None:
    recorder = Recorder(traced, AFTER)
    torch.manual_seed(5)
    one, other = small_convnet(channels=3), nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    long, short, scaled = PGD(steps=5), PGD(steps=5, step_size=0.001), Scaled(steps=5)
    kinds = [(one, long, 0.02), (one, long, 0.03), (one, short, 0.02), (other, long, 0.02), (one, scaled, 0.02)]
    for (network, attack, eps), seed in itertools.product(kinds, range(2)):
        plain, came = (
            attacked(attack, "linf", each, network, eps=eps, images=points(seed), stop="never")
            for each in (None, recorder)
        )
        assert bits(came) == bits(plain)
    # Of each network, attack and ball, and where a number of the job is in the state, of that; both seeds share one.
    assert recorder.served == 4 + 2


@dataclass(repr=False)
class Count:
    """A number in an object that looks the same from outside."""

    number: int = 0


class Box(PGD):
    """An attack that counts in Python, within what its state holds."""

    def start(self, job: Job) -> State:
        state = super().start(job)
        state.box = Count()
        return state

    def iterate(self, state: State) -> Steps:
        state.box.number += 1
        done = yield from super().iterate(state)
        state.x = (state.x + 1e-3 * (state.box.number % 7)).clamp(state.lo, state.hi)
        return done


def test_an_attack_that_counts_within_an_object_is_not_recorded() -> None:
    network, recorder = small_convnet(channels=3), Recorder(traced, AFTER)
    attack = Box(steps=STEPS)
    assert bits(attacked(attack, "linf", recorder, network)) == bits(attacked(attack, "linf", None, network))
    assert recorder.served == 0


def test_recordings_are_given_up_where_memory_is_needed() -> None:
    recorder = Recorder(traced, 0)
    assert recorder.find("", lambda tensors: ([tensors[0] + 1], [], None), [torch.zeros(2)]) is not None
    recorder.forget()
    assert recorder.served == 0


def test_what_a_recording_reads_is_known() -> None:
    """A graph knows addresses alone, so the tables and weights that it reads must not go before it does."""
    network, table = small_convnet(channels=3), torch.rand(3, 8, 8)
    x = torch.rand(2, 3, 8, 8)
    with Reads() as reads:
        leaf = (x * 2).requires_grad_()
        (gradient,) = torch.autograd.grad(network(leaf + table).sum(), leaf)
        gradient.add_(1).view(-1)[0].clone()
    read = {tensor.data_ptr() for tensor in reads.tensors}
    due = {x.data_ptr(), table.data_ptr(), *(part.data_ptr() for part in network.parameters())}
    assert read >= due
    assert len(read - due) <= 2  # what autograd itself begins with, which no operation has made


def test_only_where_there_is_cuda() -> None:
    assert recorder_for(torch.device("cpu")) is None
    assert recorder_for(torch.device("mps")) is None
