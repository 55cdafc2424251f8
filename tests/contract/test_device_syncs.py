"""On the device path the host looks at the device once or twice in eight iterations, and update rules never do."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from robusteval import registry
from robusteval.attacks.base import Attack
from robusteval.closed_form import small_convnet
from robusteval.engine import iteration
from robusteval.engine.device_path import EVERY
from robusteval.engine.direct import search
from robusteval.threat import ThreatModel

ITERATIONS = 2 * EVERY
NEVER_ASKED = [
    ("pgd", "linf", {"steps": ITERATIONS - 1}),
    ("apgd", "linf", {"steps": ITERATIONS - 1}),
    ("apgd", "l2", {"steps": ITERATIONS - 1, "loss": "targeted_dlr", "n_targets": 1}),
    ("fab", "linf", {"steps": ITERATIONS, "n_targets": 1}),
    ("fab", "l1", {"steps": ITERATIONS, "targeted": False}),
    ("square", "linf", {"queries": ITERATIONS - 1}),
    ("square", "l2", {"queries": ITERATIONS - 1}),
    ("solarize", "unbounded", {"iterations": ITERATIONS}),
]
NEAREST = [
    ("fmn", "linf", {"steps": ITERATIONS, "n_targets": 1}),
    ("fmn", "l2", {"steps": ITERATIONS, "targeted": False}),
    ("cw", "l2", {"steps": ITERATIONS // 2, "searches": 2, "abort_early": False, "n_targets": 1}),
]
# The nearest point of an L1 ball and a box is searched, and whether all rows are there is asked every few sweeps.
SELDOM_ASKED = [
    ("apgd", "l1", {"steps": ITERATIONS - 3}),
    ("square", "l1", {"queries": ITERATIONS - 1}),
    ("fmn", "l1", {"steps": ITERATIONS, "n_targets": 1}),
]
EPS = {"linf": 1e-4, "l2": 1e-3, "l1": 1e-2, "unbounded": None}

aten = torch.ops.aten
# What has to wait for the device: a number for Python, and shapes that depend on numbers. Numbers that come from the
# host one tensor at a time wait as well.
WAITING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
    aten.lift_fresh.default,
}
BY_MASK = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class Waits(TorchDispatchMode):
    """Counts the operations that would make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masks = [at for at in args[1] if at is not None and at.dtype == torch.bool] if func in BY_MASK else []
        if func in WAITING or masks:
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Count what the dispatcher does not see: the ways of a whole tensor to the host."""
    seen: list[str] = []
    with monkeypatch.context() as patch:
        for name in ("cpu", "tolist", "__array__"):
            original: Callable[..., Any] = getattr(Tensor, name)

            def counted(tensor: Tensor, *args: Any, name: str = name, original: Any = original, **kwargs: Any) -> Any:
                seen.append(name)
                return original(tensor, *args, **kwargs)

            patch.setattr(Tensor, name, counted)
        yield seen


def task(name: str, norm: Any, options: dict[str, Any]) -> tuple[Attack, ThreatModel, Tensor, Tensor, Any]:
    attack = registry.lookup(registry.ATTACKS, "attack.method", name)(**options)
    network = small_convnet(channels=3)
    images = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        labels = network(images).argmax(1)
    return attack, ThreatModel(norm=norm, eps=EPS[norm]), images, labels, network


def ids(value: Any) -> str:
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(("name", "norm", "options"), NEVER_ASKED + NEAREST + SELDOM_ASKED, ids=ids)
def test_iterations_do_not_wait(name: str, norm: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    attack, threat, images, labels, network = task(name, norm, options)
    iterate, waits, rounds = iteration._iterate, Waits(), []

    def watched(*args: Any) -> Any:
        rounds.append(1)
        with reads(monkeypatch) as seen, waits:
            done = iterate(*args)
        waits.seen.extend(seen)
        return done

    search(attack, network, images[:2], labels[:2], threat, slots=16, path="device")  # tables are made once
    monkeypatch.setattr(iteration, "_iterate", watched)
    search(attack, network, images, labels, threat, slots=16, path="device")
    assert len(rounds) >= ITERATIONS
    if (name, norm, options) in SELDOM_ASKED:
        assert len(waits.seen) <= 8 * len(rounds)
    else:
        assert waits.seen == []


@pytest.mark.parametrize(
    ("name", "norm", "options"), [one for one in NEVER_ASKED + NEAREST if one[1] == "linf"], ids=ids
)
def test_a_search_waits_a_few_times_in_eight_iterations(
    name: str, norm: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    attack, threat, images, labels, network = task(name, norm, options)
    counts = {}
    for path in ("host", "device"):
        with reads(monkeypatch) as seen, Waits() as waits:
            search(attack, network, images, labels, threat, slots=16, order=range(16), path=path)
        # Numbers brought to the device between windows come from pinned memory there, and wait for nothing.
        counts[path] = len(seen) + len([one for one in waits.seen if "lift_fresh" not in one])
    windows = 3 + ITERATIONS / EVERY  # of 1, 2 and 4 iterations, then of 8
    assert counts["device"] <= 2 * windows + 2  # the notes, and what the verifier says of claims
    assert counts["host"] > 4 * ITERATIONS
