"""On a real Slurm: every result is kept, whatever became of the other jobs, and only what is missing is run again."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

SMALL = ["dataset.n=32", "engine.chunk=16", "logger=none"]


def no_sacct(place: Any) -> dict[str, str]:
    """Return the variables under which sacct says what it says on a cluster that keeps no accounts."""
    folder = place.path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "sacct").write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")
    (folder / "sacct").chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def accounts(place: Any, array: str) -> dict[str, str]:
    """Return "STATE EXITCODE" of each task of an array, once all have ended."""

    def ended() -> dict[str, str] | None:
        lines = place.said("sacct", "-X", "-n", "-P", "-D", "-o", "JobID,State,ExitCode", "-j", array).splitlines()
        found = {job: f"{state.split()[0]} {code}" for job, state, code in (line.split("|") for line in lines)}
        return found if found and not any("RUNNING" in said or "PENDING" in said for said in found.values()) else None

    return place.until(ended, "the accounts")


def submitted(err: str) -> int:
    return int(re.search(r"(\d+) jobs submitted", err)[1])  # pyright: ignore[reportOptionalSubscript]


def test_one_that_raises_one_killed_and_one_cancelled_cost_no_other(place: Any) -> None:
    """Also without sacct: a killed job does not hang the command."""
    entries = ",".join(f"nets.py:net{number}" for number in range(8))
    sweep = ["-m", *place.evaluation, *SMALL, f"model.entry={entries}", *place.on_slurm]
    hidden = no_sacct(place)
    first = place.start(*sweep, RAISES="net0", WAITS="net1 net2", **hidden)
    for name in ("pid-net1", "pid-net2"):
        place.until((place.path / name).exists, name)
    jobs = place.jobs()
    array = jobs["net0"].partition("_")[0]
    assert sorted(jobs.values()) == [f"{array}_{number}" for number in range(8)]
    os.kill(int((place.path / "pid-net1").read_text()), signal.SIGKILL)
    place.said("scancel", jobs["net2"])
    out, err = first.communicate(timeout=400)
    assert first.returncode == 75, err
    assert submitted(err) == 8
    complete = sorted(path.parent.name for path in place.runs.glob("*/results.json"))
    assert len(complete) == 5
    assert sorted(Path(line).name for line in out.splitlines()) == complete
    assert f"job {jobs['net0']}" in err
    assert "no more of this" in err
    assert f"job {jobs['net2']}" in err
    assert "CANCELLED" in err
    said = accounts(place, array)
    assert said[jobs["net0"]] == "FAILED 2:0"
    assert said[jobs["net1"]].startswith("FAILED")
    assert said[jobs["net2"]].startswith("CANCELLED")
    assert [said[jobs[f"net{number}"]] for number in range(3, 8)] == ["COMPLETED 0:0"] * 5
    code, out, _ = place.run("status", "--format", "csv")
    states = [line.split(",")[1] for line in out.splitlines()[1:]]
    assert (code, states.count("done"), states.count("failed")) == (0, 5, 1)
    # net0 raises no more; net1 and net2 are told to go on.
    (place.path / "go").touch()
    code, out, err = place.run(*sweep, **hidden)
    assert code == 0, err
    assert submitted(err) == 3
    assert len(out.splitlines()) == 8
    code, out, _ = place.run("summary", "--format", "csv")
    assert len(out.splitlines()) == 1 + 8


def test_without_waiting_and_the_same_command_again(place: Any) -> None:
    """The second command finds the jobs in the queue; lines of setup and a GPU reach the job."""
    extra = ["hydra.launcher.gpus_per_node=1", "hydra.launcher.setup=['export HOLD=0']", "hydra.launcher.wait=false"]
    sweep = ["-m", *place.evaluation, *SMALL, "model.entry=nets.py:net0,nets.py:net1", *place.on_slurm, *extra]
    code, out, err = place.run(*sweep)
    assert (code, out) == (0, ""), err
    assert submitted(err) == 2
    again = place.start(*sweep[:-1])
    place.until(lambda: len(list(place.runs.glob("*/locks/1-of-1"))) == 2, "the jobs")
    _, told, _ = place.run("status")
    assert re.search(r"Slurm job \d+_1", told)
    found = next(line for line in iter(again.stderr.readline, "") if "submitted" in line)  # before the jobs may end
    assert "0 jobs submitted" in found
    assert "2 were in the queue" in found
    (place.path / "go").touch()
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert len(out.splitlines()) == 2
    assert len(list(place.runs.glob(".sweep/slurm-*.json"))) == 1
    (script,) = place.runs.glob(".sweep/slurm/*/*_submission.sh")
    assert "--gpus-per-node=1" in script.read_text()


def test_sbatch_that_refuses_is_told_in_one_sentence(place: Any) -> None:
    given = [*place.evaluation, *SMALL, "model.entry=nets.py:net0,nets.py:net1", *place.on_slurm]
    code, _, err = place.run("-m", *given, "hydra.launcher.partition=nowhere")
    assert code == 2
    assert err.count("robusteval: ") == 1
    assert "invalid partition" in err
    assert "nothing was submitted" in err


def test_the_plain_launcher_of_hydra_goes_on_working(place: Any) -> None:
    given = [*place.evaluation, *SMALL, "model.entry=nets.py:net0,nets.py:net1", "hydra/launcher=submitit_slurm"]
    code, _, err = place.run("-m", *given, "hydra.launcher.mem_gb=1", "hydra.launcher.timeout_min=5")
    assert code == 0, err
    assert len(list(place.runs.glob("*/results.json"))) == 2
