"""A run that ends by an error leaves its sentence, without secrets, until it succeeds."""

import json
import time
from pathlib import Path

import pytest

from robusteval.cli import run
from robusteval.errors import Interrupted, RobustevalError
from robusteval.evidence import failures, lock
from robusteval.evidence.folder import RunFolder

NET = """
import glob, os
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(784, 10)

    def forward(self, x):
        if "FAULT" in os.environ and glob.glob("runs/*/run.json"):
            raise ValueError("no more of this, " + os.environ["FAULT"])
        return self.layer(x.flatten(1))

def make():
    torch.manual_seed(3)
    return Net()
"""
GIVEN = ["model=python", "model.entry=faulty_nets:make", "dataset=mnist_5k", "attack=fgsm", "threat=linf_0.3",
         "dataset.n=64", "engine.chunk=16", "logger=none"]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "faulty_nets").mkdir()
    (tmp_path / "faulty_nets" / "__init__.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_sentence_stays_until_the_task_succeeds(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "5ec7e7" * 7)
    monkeypatch.setenv("FAULT", "5ec7e7" * 7)
    assert run([*GIVEN, "runtime.shard=2/2"]) == 2
    assert run([*GIVEN, "runtime.shard=1/2"]) == 2
    (folder,) = (path.parent for path in here.glob("runs/*/run.json"))
    errors = folder / "errors"
    assert sorted(path.name for path in errors.iterdir()) == ["1-of-2.txt", "2-of-2.txt"]
    text = (errors / "2-of-2.txt").read_text()
    assert text.count("\n") == 1
    assert "forward pass raised ValueError: no more of this, ***" in text
    capsys.readouterr()
    assert run(["status"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "failed" in out
    assert "1-of-2:" in out
    monkeypatch.delenv("FAULT")
    assert run([*GIVEN, "runtime.shard=2/2"]) == 0
    assert [path.name for path in errors.iterdir()] == ["1-of-2.txt"]
    assert run(GIVEN) == 0
    assert not errors.exists()


def test_in_a_sweep_even_what_failed_before_it_began_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = [f"dataset.path={tmp_path / 'no.npz'}", f"runs.dir={tmp_path / 'runs'}", "logger=none", "attack=noise"]
    assert run(["dataset=arrays", "model=mnist_cnn", "threat.eps=0.1", *missing]) == 2
    assert not (tmp_path / "runs").exists()
    assert run(["-m", "dataset=arrays", "model=mnist_cnn,mnist_cnn_at", "threat.eps=0.1", *missing]) == 2
    capsys.readouterr()
    assert run(["status", str(tmp_path / "runs"), "--format", "csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(",failed," in line and "no.npz" in line for line in lines[1:])


@pytest.mark.parametrize("raised", [lock.Held("another is at work"), Interrupted("SIGTERM"), KeyboardInterrupt()])
def test_what_is_no_failure_leaves_nothing(tmp_path: Path, raised: BaseException) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(type(raised)), failures.recorded(folder, "1-of-1", begin=True):
        raise raised
    assert not folder.errors.exists()


def test_a_bug_is_recorded_with_its_kind(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(ZeroDivisionError), failures.recorded(folder, "3-of-8", begin=False):
        raise ZeroDivisionError("float\n  division")
    assert failures.read(folder) == {"3-of-8": "ZeroDivisionError: float division"}
    assert len(failures.sentence(RobustevalError("long " * 1000))) <= 1000


def test_a_run_that_another_holds_is_no_failure(
    damaged: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (damaged / "results.json").unlink()
    (damaged / "locks").mkdir(exist_ok=True)
    holder = {"host": "node7/x", "pid": 4, "started": "1", "slurm": None, "heartbeat": time.time()}
    (damaged / "locks" / "1-of-1").write_text(json.dumps(holder))
    assert run([*command, f"runs.dir={damaged.parent}"]) == 1
    assert "node7" in capsys.readouterr().err
    assert not (damaged / "errors").exists()
