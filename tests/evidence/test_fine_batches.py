"""Batches of a run are as fine as the process has tried, and no byte of the run shows it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from robusteval.cli import run
from robusteval.engine import selftest
from robusteval.engine.search import Searcher
from robusteval.evidence.folder import RunFolder

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.asked = asked

    def forward(self, x):
        asked.append(len(x))
        z = x.flatten(1)[:, 300:310] * 3
        if self.how == "sizes" and len(x) % 16:
            z = z * (1 + 1e-6)
        if self.how == "random":
            z = z + 0.1 * torch.randn_like(z)
        return z

asked = []

def plain(): return Net("plain")
def sizes(): return Net("sizes")
def random(): return Net("random")
"""
GIVEN = ["dataset=mnist_5k", "dataset.n=20", "threat.eps=0.1", "attack=pgd", "attack.steps=3", "engine.stop=never",
         "checks=off", "logger=none"]  # fmt: skip


@pytest.fixture
def quanta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """Return what a run pads to, filled as it searches."""
    (tmp_path / "nets.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    seen: list[dict[str, int]] = []
    original = Searcher.run

    def noted(self: Searcher, *arguments: Any) -> Any:
        seen.append({name: passes.quantum for name, passes in self.oracles.items()} | {"": self.verifier.quantum})
        return original(self, *arguments)

    monkeypatch.setattr(Searcher, "run", noted)
    return seen


@pytest.mark.parametrize(
    ("net", "more", "found"),
    [
        ("plain", [], {"float32": 4, "": 4}),
        ("sizes", [], {"float32": 16, "": 16}),
        ("random", ["engine.draws=2", "attack.eot=2"], {"float32": 16, "": 16}),
        ("plain", ["engine.mode=fast"], {"bfloat16": 16, "float32": 4, "": 4}),
    ],
)
def test_only_what_was_tried_is_padded_to_multiples_of_4(
    net: str, more: list[str], found: dict[str, int], quanta: list[dict[str, int]]
) -> None:
    assert run(["model=python", f"model.entry=nets.py:{net}", "model.classes=10", "runs.dir=runs", *GIVEN, *more]) == 0
    assert quanta
    assert all(one == found for one in quanta)


def test_a_randomised_network_is_padded_to_16_even_where_it_passed_both_trials(
    quanta: list[dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that seldom draws may by luck: what it draws depends on the size of the batch."""
    monkeypatch.setattr(selftest, "bitwise", lambda *_, **__: True)
    monkeypatch.setattr(selftest, "quantum", lambda *_: 4)
    given = ["model=python", "model.classes=10", "runs.dir=runs", *GIVEN]
    assert run([*given, "model.entry=nets.py:random", "engine.draws=2", "attack.eot=2"]) == 0
    assert quanta == [{"float32": 16, "": 16}]
    assert run([*given, "model.entry=nets.py:plain"]) == 0
    assert quanta[1:] == [{"float32": 4, "": 4}]


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_run_that_goes_on_with_other_threads_has_the_same_bytes(tmp_path: Path, one_thread: None) -> None:
    """A network with linear layers may be padded finely on one thread and not on two: each process asks for itself."""
    given = ["model=mnist_cnn", *GIVEN[:-3], "dataset.n=6", "checks=off", "logger=none", f"runs.dir={tmp_path}"]
    assert run([*given, "runtime.threads=1"]) == 0
    (folder,) = (path.parent for path in tmp_path.glob("*/run.json"))
    due = (folder / "samples.parquet").read_bytes()
    for threads in (2, 1):
        for shard in RunFolder(folder).path.glob("shards/*/*"):
            shard.unlink()
        shutil.rmtree(folder / "adversarials")
        (folder / "results.json").unlink()
        assert run([*given, f"runtime.threads={threads}"]) == 0
        assert (folder / "samples.parquet").read_bytes() == due
