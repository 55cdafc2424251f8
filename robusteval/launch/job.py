"""One job of Slurm: an evaluation, its exit code told to Slurm and to whoever waits. Imports no torch by itself.

submitit starts it and answers signals: before the time is up the job requeues itself, and SIGTERM, which Slurm sends
before it takes a job away, is let pass. The evaluation computes on until it is killed, since a kill costs no more than
the chunk at work, and a job that ended by itself would not be requeued by Slurm.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from robusteval.errors import Interrupted, RobustevalError
from robusteval.evidence import atomic
from robusteval.launch.evaluation import evaluate_alone


@dataclass(frozen=True)
class Job:
    """What submitit takes to the node: ``plain`` values of an Evaluation, and the folder of all jobs' files."""

    plain: Mapping[str, Any]
    folder: Path

    def __call__(self) -> None:
        """Evaluate; where that fails end the process with its exit code, by which Slurm calls the job FAILED."""
        if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):  # not every cluster binds a job to its cores
            os.environ.setdefault("OMP_NUM_THREADS", cpus)
        told = code_file(self.folder, _number())
        with contextlib.suppress(OSError):  # of an earlier life of this job
            told.unlink(missing_ok=True)
        with _requeues() as requeued:
            code = evaluate_alone(self.plain)
        if not requeued:
            with contextlib.suppress(RobustevalError):  # a full disk; the queue and the run's files tell as well
                atomic.write(told, f"{code}\n".encode())
        if code:
            sys.exit(code)

    def checkpoint(self) -> Any:
        """Return what submitit runs after a requeue: the same, as the state is in the run's folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@contextlib.contextmanager
def _requeues() -> Iterator[list[bool]]:
    """Let submitit answer SIGUSR2 (the time is nearly up) in the block, and yield what is empty until it requeued.

    It ends the process by SystemExit once it has, and by an exception where it has not: both would be taken for a
    failure of the network in whose midst the signal came. Interrupted is not.
    """
    theirs, requeued = signal.getsignal(signal.SIGUSR2), []

    def answer(number: int, frame: FrameType | None) -> None:
        assert callable(theirs)
        try:
            theirs(number, frame)
        except SystemExit:
            requeued.append(True)
            raise Interrupted("the job's time is up, it is requeued") from None
        except Exception as error:
            raise Interrupted(f"the job's time is up, and it was not requeued: {error}") from error

    if callable(theirs):
        signal.signal(signal.SIGUSR2, answer)
    try:
        yield requeued
    finally:
        signal.signal(signal.SIGUSR2, theirs)


def code_file(folder: Path, job: str) -> Path:
    """Return the file in which a job leaves its exit code."""
    return folder / job / "exit-code"


def log_file(folder: Path, job: str) -> Path:
    """Return the file with what a job wrote to its standard error."""
    return folder / job / f"{job}_0_log.err"


def _number() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
