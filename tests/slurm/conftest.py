"""Sweeps on a real Slurm, with networks that fail, or stop in their midst until they are told to go on."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

ROOT = Path(__file__).parents[2]

# While `runs` has HOLD chunks and more, every pass waits for the file `go`; a pass of a network in WAITS does in any
# case. The file keeps its bytes, so that runs remain the same.
NETS = """
import os, time
from pathlib import Path
import torch

class Net(torch.nn.Module):
    def __init__(self, name):
        super().__init__()
        self.name = name
        self.layer = torch.nn.Linear(784, 10)

    def forward(self, x):
        here = Path(os.environ["HERE"])
        if self.name in os.environ.get("RAISES", "").split():
            raise ValueError("no more of this")
        waits = self.name in os.environ.get("WAITS", "").split()
        if waits:
            (here / f"pid-{self.name}").write_text(str(os.getpid()))
        hold = int(os.environ.get("HOLD", "1000000"))
        while (waits or len(list(here.glob("runs/*/shards/*pgd/*.parquet"))) >= hold) and not (here / "go").exists():
            time.sleep(0.1)
        return self.layer(x.flatten(1))

def _make(number):
    def make():
        torch.manual_seed(number)
        return Net(f"net{number}")
    return make

for number in range(8):
    globals()[f"net{number}"] = _make(number)
"""


@dataclass
class Place:
    """A folder with the networks, in which commands are run."""

    path: Path
    begun: list["subprocess.Popen[str]"] = field(default_factory=list)
    evaluation: ClassVar[list[str]] = ["model=python", "dataset=mnist_5k", "attack=pgd", "attack.steps=3",
        "threat=linf_0.3", "threat.eps=0.05"]  # fmt: skip
    shared: ClassVar[list[str]] = ["model.entry=nets.py:net0", "dataset.n=192", "engine.chunk=16"]

    @property
    def on_slurm(self) -> list[str]:
        """Jobs of the size of a CPU, under a name of their own."""
        options = [f"name={self.path.name}", "cpus_per_task=1", "mem_gb=0.9"]
        return ["hydra/launcher=slurm", *(f"hydra.launcher.{option}" for option in options)]

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def folder(self) -> Path:
        """The only run."""
        (found,) = self.runs.glob("*/run.json")
        return found.parent

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a command line of robusteval here."""
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, "-m", "robusteval", *arguments],
            cwd=self.path,
            env={**os.environ, "PYTHONPATH": paths, "HERE": str(self.path), "WANDB_MODE": "offline", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.begun.append(process)
        return process

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Run a command line; return its exit code and both outputs."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=280)
        return process.returncode, out, err

    @staticmethod
    def said(*command: str) -> str:
        """Return what a command of Slurm says."""
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    @staticmethod
    def until(holds: Callable[[], Any], what: str, seconds: float = 240) -> Any:
        """Wait for a condition and return its value."""
        end = time.monotonic() + seconds
        while not (value := holds()):
            assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}; {Place.said('squeue')}"
            time.sleep(0.2)
        return value

    @staticmethod
    def outcome(folder: Path) -> dict[str, Any]:
        """Return what may not depend on who computed: samples, evidence, results but for their times."""
        results = json.loads((folder / "results.json").read_text())
        results["cost"] = {key: value for key, value in results["cost"].items() if key.endswith("_passes")}
        evidence = [path for part in ("shards", "adversarials") for path in (folder / part).rglob("*.*")]
        return {
            "samples": (folder / "samples.parquet").read_bytes(),
            "evidence": sorted(str(path.relative_to(folder)) for path in evidence),
            "results": json.dumps({key: value for key, value in results.items() if key not in ("provenance", "sinks")}),
        }

    def restarts(self) -> list[int]:
        """Return how often Slurm has started each job of this place again."""
        jobs = self.said("scontrol", "show", "job", "--oneliner").splitlines()
        mine = [job for job in jobs if f"JobName={self.path.name} " in job]
        return [int(job.partition("Restarts=")[2].partition(" ")[0]) for job in mine]

    def jobs(self) -> dict[str, str]:
        """Return the number of the job of each share, and of each network where a sweep names several."""
        (record,) = self.runs.glob(".sweep/slurm-*.json")
        entries = json.loads(record.read_text())["evaluations"]
        named = [next((o[-4:] for o in entry["overrides"] if "entry=" in o), "") for entry in entries]
        keys = [entry["task"] for entry in entries] if len(set(named)) == 1 else named
        return {key: entry["job"] for key, entry in zip(keys, entries, strict=True)}

    def wandb_runs(self) -> int:
        """Return how many runs of W&B lie in the only run."""
        return len(list(self.folder.glob("wandb/offline-run-*")))

    def end(self) -> None:
        """End what was started here and is still at it."""
        for process in self.begun:
            process.kill()
            process.communicate()
        subprocess.run(["scancel", "--user=root", f"--name={self.path.name}"], check=False)

    def holders(self, count: int) -> dict[str, int]:
        """Wait until so many tasks hold their locks, and return the process of each."""
        locks = self.until(
            lambda: (found := list(self.runs.glob("*/locks/[0-9]*"))) and len(found) == count and found,
            f"{count} tasks at work",
        )
        return {path.name: json.loads(path.read_text())["pid"] for path in locks}


@pytest.fixture(scope="session", autouse=True)
def _cluster() -> None:
    if "SLURM_CONF" not in os.environ:
        pytest.skip("make test-slurm brings up a Slurm for these tests")


@pytest.fixture(scope="session")
def make_place() -> Callable[[Path], Place]:
    """Return what makes a folder with the networks."""

    def make(path: Path) -> Place:
        (path / "nets.py").write_text(NETS)
        return Place(path)

    return make


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, make_place: Callable[[Path], Place]) -> dict[str, Any]:
    """Return what a single process makes of the evaluation that the tests share among jobs."""
    place = make_place(tmp_path_factory.mktemp("whole"))
    code, _, err = place.run(*place.evaluation, *place.shared, "logger=none")
    assert code == 0, err
    return place.outcome(place.folder)


@pytest.fixture(scope="session", autouse=True)
def timed_out(
    _cluster: None, tmp_path_factory: pytest.TempPathFactory, make_place: Callable[[Path], Place]
) -> Iterator[tuple[Place, "subprocess.Popen[str]"]]:
    """Begin, beside all other tests, an evaluation whose job runs out of its time; yield its place and process."""
    place = make_place(tmp_path_factory.mktemp("timed_out"))
    limits = ["hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=30", "runtime.workers=2"]
    process = place.start("-m", *place.evaluation, *place.shared, "logger=none", *place.on_slurm, *limits, HOLD="2")
    yield place, process
    place.end()


@pytest.fixture
def place(tmp_path: Path, make_place: Callable[[Path], Place]) -> Iterator[Place]:
    """Yield a folder with the networks; what was started in it and is still at it is ended."""
    place = make_place(tmp_path)
    yield place
    place.end()
