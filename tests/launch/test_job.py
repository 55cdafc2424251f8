"""One job of Slurm as its node runs it: what it tells Slurm, whoever waits, and what it makes of signals."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from robusteval.engine.signals import interruptible
from robusteval.errors import Interrupted
from robusteval.launch import job
from robusteval.launch.job import Job, code_file


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make this process task 3 of job 7; return the file that tells its exit code."""
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    path = code_file(tmp_path, "7_3")
    path.parent.mkdir()
    path.write_text("1")  # of an earlier life
    return path


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_exit_code_is_told(told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "evaluate_alone", lambda plain: plain["code"])
    with pytest.raises(SystemExit) as left:
        Job({"code": 2}, tmp_path)()
    assert left.value.code == 2
    assert told.read_text() == "2\n"
    Job({"code": 0}, tmp_path)()
    assert told.read_text() == "0\n"
    assert os.environ["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize(("ends", "written"), [(SystemExit(-1), None), (RuntimeError("too often"), "75\n")])
def test_a_signal_in_a_network_is_no_failure_of_the_network(
    ends: BaseException,
    written: str | None,
    told: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    handlers: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """submitit has requeued the job when it raises SystemExit; the job has not ended then, so no code is told."""

    def submitit(*_: object) -> None:
        raise ends

    def evaluate(_: object) -> int:
        assert not told.exists()
        try:  # as passes through a network do
            os.kill(os.getpid(), signal.SIGUSR2)
            signal.sigtimedwait([], 1)
        except (Exception, SystemExit):
            return 2
        return 0

    monkeypatch.setattr("robusteval.launch.evaluation.evaluate", evaluate)
    signal.signal(signal.SIGUSR2, submitit)
    with pytest.raises(SystemExit) as left:
        Job({}, tmp_path)()
    assert left.value.code == 75
    assert (told.read_text() if told.exists() else None) == written
    assert "run the same command to go on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGUSR2) is submitit


def test_a_bug_keeps_its_traceback(
    told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def evaluate(_: object) -> int:
        raise KeyError("a bug")

    monkeypatch.setattr("robusteval.launch.evaluation.evaluate", evaluate)
    with pytest.raises(SystemExit) as left:
        Job({}, tmp_path)()
    assert left.value.code == 1
    assert "KeyError: 'a bug'" in capsys.readouterr().err
    assert told.read_text() == "1\n"


def test_sigterm_that_somebody_answers_stays_theirs(handlers: None) -> None:
    """In a job of Slurm it is let pass; elsewhere it interrupts."""
    passed = []
    signal.signal(signal.SIGTERM, lambda *_: passed.append(1))
    with interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
    assert passed == [1]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(Interrupted), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
