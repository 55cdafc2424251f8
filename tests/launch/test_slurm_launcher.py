"""What is submitted, in which pieces, and what is made of jobs that end, vanish, or are refused; no Slurm needed."""

import dataclasses
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from robusteval.cli import run
from robusteval.config import construct
from robusteval.errors import RobustevalError, UserError
from robusteval.evidence import sweeps
from robusteval.launch import launched, queue
from robusteval.launch import slurm as launcher
from robusteval.launch.evaluation import Evaluation
from robusteval.launch.job import code_file
from robusteval.launch.options import Slurm
from robusteval.launch.task import Task

Plan = Callable[..., list[Evaluation]]
NOW = Slurm(wait=False)


def scripts(slurm: Path) -> list[str]:
    return [path.read_text() for path in sorted(slurm.glob("script-*"))]


def arrays(slurm: Path) -> list[str]:
    return re.findall(r"--array=(\S+)", "".join(scripts(slurm)))


def end(evaluations: Sequence[Evaluation], codes: dict[str, int]) -> None:
    """Leave the exit codes of jobs as they would."""
    folder = evaluations[0].run.parent / sweeps.FOLDER / "slurm"
    for job, code in codes.items():
        path = code_file(folder, job)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(code))


def test_eleven_hundred_jobs_in_pieces_that_the_cluster_takes(slurm: Path, planned: Plan) -> None:
    (one,) = planned()
    many = []
    for seed in range(1100):
        many.append(Evaluation(mapping={**one.mapping, "seed": seed}, overrides=[f"seed={seed}"]))
        many[-1].__dict__["config"] = dataclasses.replace(one.config, seed=seed)  # which it would build, for longer
    assert launcher.launch(many, NOW) == [0] * 1100
    assert sorted(arrays(slurm)) == ["0-297%298", "0-400%401", "0-400%401"]
    assert "dependency" not in "".join(scripts(slurm))
    known = sweeps.read(one.run.parent)
    assert len({entry.job for entry in known.values()}) == 1100
    assert known[many[402].run.name, "1-of-1"].job == "102_1"
    pickles = list((one.run.parent / sweeps.FOLDER / "slurm").glob("*_*/*_submitted.pkl"))
    assert len(pickles) == 1100


def test_pieces_under_a_limit_of_jobs_at_once_follow_each_other(
    slurm: Path, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "array_limit", lambda: 2)
    launcher.launch(planned("seed=0,1,2,3,4"), Slurm(wait=False, array_parallelism=2))
    assert arrays(slurm) == ["0-1%2", "0-1%2"]
    assert re.findall(r"--dependency=(\S+)", "".join(scripts(slurm))) == ["afterany:101", "afterany:102"]


def test_the_script_says_what_was_asked_for(slurm: Path, planned: Plan) -> None:
    given = {
        "name": "mine", "partition": "gpu", "account": "me", "qos": "low", "gpus_per_node": 2, "cpus_per_task": 8,
        "mem_gb": 1.5, "timeout_min": 90, "array_parallelism": 3, "signal_delay_s": 60, "setup": ["module load cuda"],
        "additional_parameters": {"constraint": "a100", "exclusive": True}, "wait": False,
    }  # fmt: skip
    launcher.launch(planned("seed=0,1,2,3"), construct(Slurm, given, "hydra.launcher"))
    (script,) = scripts(slurm)
    for line in (
        "--job-name=mine", "--partition=gpu", "--account=me", "--qos=low", "--gpus-per-node=2", "--cpus-per-task=8",
        "--mem=1536M", "--time=90", "--array=0-3%3", "--signal=USR2@60", "--constraint=a100", "--exclusive",
        "--requeue",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in script
    assert "\nmodule load cuda\n" in script
    assert re.search(r"^srun .*--cpus-per-task=8 ", script, re.MULTILINE)
    assert "wckey" not in script


def test_little_is_asked_for_unasked(slurm: Path, planned: Plan) -> None:
    launcher.launch(planned(), Slurm(wait=False, requeue=False))
    (script,) = scripts(slurm)
    asked = re.findall(r"#SBATCH --([a-z-]+)", script)
    assert asked == ["error", "job-name", "nodes", "open-mode", "output", "signal", "time"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"partiton": "x"}, r"hydra\.launcher\.partiton .*did you mean 'partition'"),
        ({"mem_gb": "lots"}, r"hydra\.launcher\.mem_gb=lots"),
        ({"timeout_min": 0}, r"hydra\.launcher\.timeout_min=0"),
        ({"timeout_min": 1}, r"hydra\.launcher\.signal_delay_s=120 is no less"),
        ({"gpus_per_node": "two"}, r"hydra\.launcher\.gpus_per_node=two"),
        ({"setup": "module load"}, r"hydra\.launcher\.setup=module load"),
        ({"additional_parameters": {"a b": 1}}, r"hydra\.launcher\.additional_parameters: a b is no option"),
        ({"wait": "maybe"}, r"hydra\.launcher\.wait=maybe"),
    ],
)
def test_wrong_options_are_told_before_anything_is_submitted(
    slurm: Path, planned: Plan, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        launched("slurm", Task(planned()), given, slice(0, 1))
    assert not scripts(slurm)


def test_a_misspelt_launcher_or_option_on_the_command_line(
    slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for given, said in (
        ("hydra/launcher=slrum", "no hydra/launcher named 'slrum'; did you mean 'slurm'?"),
        ("hydra.launcher.partiton=x", "hydra.launcher.partiton is not an option of this launcher; did you mean 'part"),
        ("+hydra.launcher.partiton=x", "hydra.launcher.partiton is not an option"),
    ):
        assert run(["-m", "hydra/launcher=slurm", given, "seed=0,1", f"runs.dir={tmp_path}/runs"]) == 2
        told = capsys.readouterr().err
        assert said in told
        assert told.count("\n") == 1
    assert not scripts(slurm)


def test_without_slurm_there_is_a_sentence(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"no sbatch on this machine.*hydra/launcher=local"):
        launcher.launch(planned(), NOW)


def test_jobs_that_end_and_jobs_that_vanish(slurm: Path, planned: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    evaluations = planned("seed=0,1,2,3")
    (slurm / "queue").write_text("101_2\n")
    errors = evaluations[1].run / "errors"
    errors.mkdir(parents=True)
    (errors / "1-of-1.txt").write_text("no images\n")
    end(evaluations, {"101_0": 0, "101_1": 2})

    def later() -> None:
        time.sleep(0.3)
        (slurm / "queue").write_text("")
        end(evaluations, {"101_2": 75})

    thread = threading.Thread(target=later)
    thread.start()
    assert launcher.launch(evaluations, Slurm()) == [0, 2, 75, 75]  # 101_3 left the queue without a word
    thread.join()
    told = capsys.readouterr()
    assert told.out.splitlines() == [str(evaluations[0].run)]
    assert "job 101_1 (" in told.err
    assert "failed with exit code 2: no images" in told.err
    assert re.search(r"job 101_2 \(.*\) was interrupted", told.err)
    assert re.search(r"job 101_3 \(.*\) was ended from outside \(OUT_OF_MEMORY\)", told.err)


def test_a_controller_that_does_not_answer_ends_no_job(
    slurm: Path, planned: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluations = planned("seed=0,1")
    (slurm / "silent").touch()

    def later() -> None:
        time.sleep(0.3)
        end(evaluations, {"101_0": 0, "101_1": 0})

    thread = threading.Thread(target=later)
    thread.start()
    assert launcher.launch(evaluations, Slurm()) == [0, 0]
    thread.join()
    assert capsys.readouterr().err.count("squeue does not answer") == 1


def test_what_is_in_the_queue_is_not_submitted_twice(slurm: Path, planned: Plan) -> None:
    evaluations = planned("seed=0,1,2")
    launcher.launch(evaluations, NOW)
    (slurm / "queue").write_text("101_0\n101_2\n")
    launcher.launch(evaluations, NOW)
    launcher.launch(planned("seed=0,1,2", "runs.fresh=true"), NOW)
    assert len(scripts(slurm)) == 3
    assert [entry.job for _, entry in sorted(sweeps.read(evaluations[0].run.parent).items())] != []
    assert arrays(slurm) == ["0-2%3", "0-2%3"]  # the second was for one job alone, the third anew for all


def test_sbatch_refuses(slurm: Path, planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "array_limit", lambda: 2)
    (slurm / "refuses-102").touch()
    with pytest.raises(RobustevalError, match=r"QOSMaxSubmitJobPerUserLimit.*3 of 5 were not submitted") as told:
        launcher.launch(planned("seed=0,1,2,3,4"), NOW)
    assert told.value.exit_code == 1
    assert len(sweeps.read(planned()[0].run.parent)) == 2
    (slurm / "last").write_text("101")
    with pytest.raises(UserError, match="nothing was submitted"):
        launcher.launch(planned("seed=0,1"), NOW)


def test_done_runs_and_shares_are_not_submitted(
    slurm: Path, planned: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["model=mnist_cnn", "attack=fgsm", "dataset.n=32", "engine.chunk=16", "threat.eps=0.1"]
    shares = planned(*small, "runtime.shard=1/2,2/2")
    assert run([*shares[0].overrides]) == 0
    launcher.launch(shares, NOW)
    assert not arrays(slurm)  # one job is no array
    assert [task for _, task in sweeps.read(shares[0].run.parent)] == ["2-of-2"]
    assert run([*shares[1].overrides]) == 0
    assert launcher.launch([*shares, *planned(*small)], Slurm()) == [0, 0, 0]
    assert len(scripts(slurm)) == 1
    # All chunks, no results: one job derives them.
    (shares[0].run / "results.json").unlink()
    launcher.launch(shares, NOW)
    assert len(scripts(slurm)) == 2
    assert not arrays(slurm)
    capsys.readouterr()
    assert run(["status", f"{tmp_path}/runs"]) == 0
    assert "Slurm job" in capsys.readouterr().out


def test_fresh_is_done_once_and_not_by_the_job(slurm: Path, tmp_path: Path) -> None:
    """A job that is requeued would set aside what it did before."""
    small = ["model=mnist_cnn", "attack=none", "dataset.n=16", "logger=none", f"runs.dir={tmp_path}/runs"]
    assert run(small) == 0
    (folder,) = (path.parent for path in (tmp_path / "runs").glob("*/run.json"))
    sent = ["-m", *small, "hydra/launcher=slurm", "hydra.launcher.wait=false", "runs.fresh=true"]
    assert run(sent) == 0
    assert not folder.exists()
    assert len(list((tmp_path / "runs" / ".set_aside").iterdir())) == 1
    from submitit.core.utils import DelayedSubmission

    (pickled,) = (tmp_path / "runs").rglob("*_submitted.pkl")
    job: Any = DelayedSubmission.load(pickled).function
    assert job.plain["mapping"]["runs"]["fresh"] is False
    (record,) = (tmp_path / "runs" / ".sweep").glob("slurm-*.json")
    assert json.loads(record.read_text())["evaluations"][0]["job"] == "101"
