"""A sweep over processes of this machine: what one of them meets costs no other, and none outlives the command."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from robusteval.cli import run
from robusteval.launch import local
from robusteval.launch.evaluation import Evaluation, together

Plan = Callable[..., list[Evaluation]]

# One network works, one raises, one kills its process, one waits for ever after it said who it is.
NETS = """
import os, signal, time
from pathlib import Path
import torch

def _make(how):
    def make():
        torch.manual_seed(0)
        layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
        if how == "raises":
            raise ValueError("no more of this")
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "waits":
            Path("pid").write_text(str(os.getpid()))
            time.sleep(100)
        return layer
    return make

for how in ("works", "raises", "killed", "waits"):
    globals()[how] = _make(how)
"""
SMALL = ["model=python", "dataset=mnist_5k", "attack=fgsm", "threat=linf_0.3", "dataset.n=16", "logger=none"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_one_that_is_killed_and_one_that_raises_cost_no_other(
    here: Path, capsys: pytest.CaptureFixture[str], planned: Plan
) -> None:
    entries = "nets.py:raises,nets.py:killed,nets.py:works"
    given = ["-m", *SMALL, "hydra/launcher=local", "hydra.launcher.processes=2"]
    assert run([*given, f"model.entry={entries}"]) == 75
    told = capsys.readouterr()
    (done,) = (path.parent for path in Path("runs").glob("*/results.json"))
    assert told.out.splitlines() == [str(done)]
    assert "was killed by SIGKILL; run the same command" in told.err
    assert "no more of this" in told.err
    assert "Traceback" not in told.err
    logs = [line.rpartition("its log is ")[2] for line in told.err.splitlines() if "its log is" in line]
    assert len(logs) == 2
    assert all(Path(log).is_file() for log in logs)
    assert run(["status", "--format", "csv"]) == 0
    states = sorted(line.split(",")[1] for line in capsys.readouterr().out.splitlines()[1:])
    assert states == ["done", "failed", "missing"]  # the killed one had not begun its run
    assert run([*given, "model.entry=nets.py:works"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(done)]  # no process: it is done


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_command(here: Path, number: signal.Signals) -> None:
    given = ["-m", *SMALL, "hydra/launcher=local", "model.entry=nets.py:waits"]
    process = subprocess.Popen(
        [sys.executable, "-m", "robusteval", *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 100
    while not (here / "pid").exists() or not (here / "pid").read_text():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
    child = int((here / "pid").read_text())
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 75
        assert err.count("run the same command to go on") == 1
        assert "Traceback" not in err
    until = time.monotonic() + 20
    while alive(child):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_processes_share_cores_and_take_a_gpu_each(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (plain,) = planned()
    assert local.environment(plain, 1, 2, 0) == {"OMP_NUM_THREADS": "4"}
    assert local.environment(plain, 5, 16, 4) == {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert local.environment(plain, 1, 2, 2) == {"CUDA_VISIBLE_DEVICES": "5"}
    for own in ("runtime.device=cpu", "runtime.device=cuda:1", "runtime.workers=2"):
        assert local.environment(planned(own)[0], 1, 2, 2) == {}


def test_as_many_processes_as_asked_for_and_no_more_than_evaluations(
    planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work: list[int] = []
    most: list[int] = []

    class Process:
        returncode = 0

        def poll(self) -> int | None:
            at_work.pop()
            return 0

        def terminate(self) -> None: ...

        def wait(self, _: float) -> None: ...

    def start(*_: object) -> Process:
        at_work.append(1)
        most.append(len(at_work))
        return Process()

    monkeypatch.setattr(local, "_start", start)
    monkeypatch.setattr(local, "_PAUSE", 0.0)
    evaluations = planned("seed=0,1,2,3,4")
    for options, gpus, cores, wanted in ((2, 0, 9, 2), (9, 0, 1, 5), (None, 0, 3, 3), (None, 4, 1, 4)):
        most.clear()
        monkeypatch.setattr(local, "_gpus", lambda gpus=gpus: gpus)
        monkeypatch.setattr(local, "_cores", lambda cores=cores: cores)
        assert local.launch(evaluations, local.Local(processes=options)) == [0] * 5
        assert (max(most), len(most)) == (wanted, 5)


@pytest.mark.parametrize(
    ("codes", "whole"),
    [([], 0), ([0, 0], 0), ([0, 1], 1), ([1, 2, 0], 2), ([0, 75], 75), ([2, 75, 1], 75), ([75, 120], 75)],
)
def test_the_exit_code_of_a_sweep(codes: list[int], whole: int) -> None:
    assert together(codes) == whole


@pytest.mark.slow
def test_shards_over_processes_make_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["model=mnist_cnn", "attack=fgsm", "dataset.n=32", "engine.chunk=16", "threat.eps=0.1", "logger=none"]
    assert run([*small, f"runs.dir={tmp_path}/whole"]) == 0
    given = [*small, f"runs.dir={tmp_path}/runs", "runtime.shards=2", "hydra/launcher=local"]
    assert run(given) == 0
    (one,), (two,) = ([*(tmp_path / name).glob("*/samples.parquet")] for name in ("whole", "runs"))
    assert one.read_bytes() == two.read_bytes()
    command = json.loads((two.parent / "run.json").read_text())["provenance"]["command"]
    assert "runtime.shard=" in command
    assert os.sep + ".sweep" not in command
