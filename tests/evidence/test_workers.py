"""Several processes over the chunks of one run: the same bytes as one, whoever is killed, stopped or wrong."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from robusteval.cli import run

SMALL = ["dataset.n=64", "engine.chunk=16", "logger=none"]
NET = ["model=python", "dataset=mnist_5k", "attack=fgsm", "threat=linf_0.3", *SMALL]

# In workers only, as MISDEED says, once a chunk is finished; the file keeps its name and its bytes, so that the run
# remains the same.
ENTRY = """
import multiprocessing, os, pathlib, signal, time
import torch

misdeed = os.environ.get("MISDEED", "") if multiprocessing.parent_process() else ""

def now():
    return misdeed and any(pathlib.Path("runs").glob("*/shards/*fgsm/*.parquet"))

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(784, 10)

    def forward(self, x):
        if misdeed == "die" and now():
            os.kill(os.getpid(), signal.SIGKILL)
        if misdeed == "raise" and now():
            raise ValueError("no more of this")
        if misdeed == "sleep" and now():
            time.sleep(90)
        return self.layer(x.flatten(1))

def make():
    torch.manual_seed(7 if misdeed == "drift" else 3)
    return Net()
"""


def folder_of(runs: Path) -> Path:
    (found,) = runs.glob("*/run.json")
    return found.parent


def outcome(runs: Path) -> dict[str, Any]:
    """Return what may not depend on who computed: samples, names of evidence, results but for their times."""
    folder = folder_of(runs)
    results = json.loads((folder / "results.json").read_text())
    results["cost"] = {key: value for key, value in results["cost"].items() if key.endswith("_passes")}
    evidence = [path for part in ("shards", "adversarials") for path in (folder / part).rglob("*.*")]
    return {
        "samples": (folder / "samples.parquet").read_bytes(),
        "evidence": sorted(str(path.relative_to(folder)) for path in evidence),
        "results": {key: value for key, value in results.items() if key not in ("provenance", "sinks")},
    }


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with the user's own network the current one."""
    (tmp_path / "net.py").write_text(ENTRY)
    (tmp_path / "nets_for_workers").mkdir()
    (tmp_path / "nets_for_workers" / "__init__.py").write_text(ENTRY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(["attack=pgd", "attack.steps=4"], id="pgd"),
        pytest.param(["attack=solarize", "dataset.n=32"], id="solarize", marks=pytest.mark.slow),
    ],
)
def test_two_workers_make_the_same_bytes_as_one_process(tmp_path: Path, attack: list[str]) -> None:
    for workers in (1, 2):
        given = ["model=mnist_cnn_at", *SMALL, *attack, f"runtime.workers={workers}"]
        assert run([*given, f"runs.dir={tmp_path / str(workers)}"]) == 0
    assert outcome(tmp_path / "2") == outcome(tmp_path / "1")


def test_chunks_are_shared_and_no_process_is_started_for_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robusteval.engine import runner

    asked = []
    monkeypatch.setattr(runner, "share", lambda config, run, tasks, devices, *_: asked.append((tasks, devices)))
    given = [*NET, "model.entry=net.py:make", "runs.dir=runs", "runtime.workers=3"]
    assert run(given) == 1  # nothing was computed
    ((tasks, devices),) = asked
    assert [number for number, _ in tasks] == [0, 1, 2, 3]
    assert len(devices) == 3
    assert run([*given, "runtime.workers=1"]) == 0
    folder = folder_of(here / "runs")
    wanted = outcome(here / "runs")
    (folder / "results.json").unlink()
    next(folder.glob("shards/*fgsm/00002-*")).unlink()
    assert run(given) == 0  # by this process alone, or the chunk would be missing
    assert len(asked) == 1
    assert outcome(here / "runs") == wanted


@pytest.mark.slow
def test_a_killed_worker_costs_no_finished_chunk(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*NET, "model.entry=net.py:make"]
    assert run([*given, "runs.dir=whole"]) == 0
    capsys.readouterr()
    monkeypatch.setenv("MISDEED", "die")
    assert run([*given, "runs.dir=runs", "runtime.workers=2"]) == 1
    said = capsys.readouterr().err
    assert "was killed by SIGKILL" in said
    assert "run the same command to go on" in said
    assert "Traceback" not in said
    kept = list(folder_of(here / "runs").glob("shards/*/*.parquet"))
    assert kept
    assert not (folder_of(here / "runs") / "results.json").exists()
    monkeypatch.delenv("MISDEED")
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert run([*given, "runs.dir=runs"]) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert outcome(here / "runs") == outcome(here / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("misdeed", "entry", "said"),
    [
        ("raise", "nets_for_workers:make", "forward pass raised ValueError: no more of this (__init__.py, line"),
        ("drift", "net.py:make", "a worker was given other weights than the run began with"),
    ],
)
def test_what_is_wrong_in_a_worker_is_told_in_one_sentence(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    misdeed: str,
    entry: str,
    said: str,
) -> None:
    monkeypatch.setenv("MISDEED", misdeed)
    assert run([*NET, f"model.entry={entry}", "runs.dir=runs", "runtime.workers=2"]) == 2
    err = capfd.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert err.count("robusteval: ") == 1
    assert not list((folder_of(here / "runs") / "locks").glob("[0-9]*"))


# Without the usual guard: whatever is run again in a worker would start an evaluation of its own.
SCRIPT = "import sys\nfrom robusteval.cli import run\nsys.exit(run(sys.argv[1:]))\n"


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended just now
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def begun(program: list[str]) -> "Iterator[tuple[subprocess.Popen[str], list[int]]]":
    """Start an evaluation in a group of its own; yield it and its children once a chunk is done and a worker hangs."""
    process = subprocess.Popen(
        [sys.executable, *program, *NET, "model.entry=net.py:make", "runs.dir=runs", "runtime.workers=2"],
        env={**os.environ, "MISDEED": "sleep"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 120
        while not list(Path("runs").glob("*/shards/*fgsm/*.parquet")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.05)
        yield process, children(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def gone(pids: list[int], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are counted in /proc")


@needs_proc
@pytest.mark.slow
def test_ctrl_c_reaches_the_whole_group_and_is_told_once(here: Path) -> None:
    (here / "script.py").write_text(SCRIPT)
    with begun(["script.py"]) as (process, pids):
        assert len(pids) >= 2
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 75
        assert err.count("run the same command to go on") == 1
        assert "Traceback" not in out + err
        assert gone(pids, 5)
    folder = folder_of(here / "runs")
    assert not (folder / "results.json").exists()
    assert not list((folder / "locks").glob("[0-9]*"))


@needs_proc
@pytest.mark.slow
def test_workers_end_with_a_killed_parent_and_another_process_goes_on(here: Path) -> None:
    with begun(["-m", "robusteval"]) as (process, pids):
        assert len(pids) >= 2
        os.kill(process.pid, signal.SIGKILL)
        assert gone(pids, 5)
    assert not (folder_of(here / "runs") / "results.json").exists()
    for runs in ("runs", "whole"):
        assert run([*NET, "model.entry=net.py:make", f"runs.dir={runs}"]) == 0
    assert outcome(here / "runs") == outcome(here / "whole")
