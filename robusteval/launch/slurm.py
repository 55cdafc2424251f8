"""A sweep as job arrays of Slurm, submitted by submitit and waited for without its watcher, which needs ``sacct``.

What is done is not submitted, what still waits or runs from an earlier command is waited for, and every evaluation is
told of, whatever became of the others.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robusteval.errors import Interrupted, RobustevalError, UserError
from robusteval.evidence import failures, sweeps
from robusteval.evidence.folder import RunFolder
from robusteval.launch import queue
from robusteval.launch.evaluation import Evaluation
from robusteval.launch.job import Job, code_file, log_file
from robusteval.launch.left import left
from robusteval.launch.options import Slurm

_PATIENCE = 20.0
"""Seconds that a job which left the queue has to tell its exit code: files may come late from another machine."""
_PAUSES = (0.5, 15.0)
"""The shortest and the longest pause between two looks at the queue, in seconds."""


def launch(evaluations: Sequence[Evaluation], options: Slurm) -> list[int]:
    """Submit the evaluations that are not done, wait for them if so asked, and return the exit code of each.

    Raises UserError where sbatch refuses, RobustevalError where it does so after it took a part of them.
    """
    queue.refuse_missing()
    runs = Path(evaluations[0].config.runs.dir)
    folder = (runs / sweeps.FOLDER / "slurm").resolve()
    waiting, todo = _sorted_out(evaluations, runs)
    pieces = _pieces(todo, options)
    previous = None
    for number, piece in enumerate(pieces):
        try:
            jobs = _submit([evaluations[index] for index in piece], options, folder, previous)
        except _Refused as refused:
            told = f"hydra/launcher=slurm: sbatch refused the jobs ({refused})"
            if number == 0:
                raise UserError(f"{told}; nothing was submitted") from refused
            rest = sum(map(len, pieces[number:]))
            raise RobustevalError(
                f"{told}; {rest} of {len(todo)} were not submitted, run the same command again when the others are done"
            ) from refused
        _note(runs, [evaluations[index] for index in piece], jobs, folder)
        waiting |= dict(zip(jobs, piece, strict=True))
        previous = jobs[0].partition("_")[0]
    skipped = len(evaluations) - len(waiting)
    _say(
        f"{len(todo)} jobs submitted{_named(waiting)}, {len(waiting) - len(todo)} were in the queue, {skipped} were "
        f"done; robusteval status {runs} tells how far they are"
    )
    codes = [0] * len(evaluations)
    if options.wait:
        codes = _wait(waiting, evaluations, folder)
    return codes


def _sorted_out(evaluations: Sequence[Evaluation], runs: Path) -> tuple[dict[str, int], list[int]]:
    """Return the jobs of earlier commands that are still at it, and the evaluations that have none, by their places."""
    known, alive = sweeps.read(runs), queue.alive() or set()
    waiting: dict[str, int] = {}
    todo = []
    for index, (evaluation, wanted) in enumerate(zip(evaluations, left(evaluations), strict=True)):
        entry = known.get((evaluation.run.name, evaluation.task))
        if not wanted:
            print(evaluation.run, flush=True)
        elif entry is not None and entry.job in alive and not evaluation.config.runs.fresh:
            waiting[entry.job or ""] = index
        else:
            todo.append(index)
    return waiting, todo


def _pieces(todo: Sequence[int], options: Slurm) -> list[Sequence[int]]:
    """Return what is to be submitted in arrays that the cluster takes."""
    most = queue.array_limit() if len(todo) > 1 else 1
    return [todo[start : start + most] for start in range(0, len(todo), most)]


class _Refused(Exception):
    """What sbatch said."""


def _submit(evaluations: Sequence[Evaluation], options: Slurm, folder: Path, previous: str | None) -> list[str]:
    """Submit one array and return the numbers of its jobs. Raises _Refused."""
    import submitit
    from submitit.core.utils import FailedJobError

    executor = submitit.SlurmExecutor(folder=folder / "%j", max_num_timeout=options.max_num_timeout)
    executor.update_parameters(**_parameters(options, previous))
    try:
        if len(evaluations) == 1:
            jobs = [executor.submit(Job(evaluations[0].plain(), folder))]
        else:
            with executor.batch():
                jobs = [executor.submit(Job(evaluation.plain(), folder)) for evaluation in evaluations]
    except (FailedJobError, RuntimeError) as error:
        lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in str(error).strip().splitlines()]
        raise _Refused(lines[-1] if lines else type(error).__name__) from error
    return [job.job_id for job in jobs]


def _parameters(options: Slurm, previous: str | None) -> dict[str, Any]:
    """Return what submitit calls the options; ``previous`` is the array after which these jobs begin."""
    given: dict[str, Any] = {
        "job_name": options.name,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "gpus_per_node": options.gpus_per_node,
        "cpus_per_task": options.cpus_per_task,
        # From Slurm 22.05 on srun takes one processor unless it is told again.
        "srun_args": None if options.cpus_per_task is None else [f"--cpus-per-task={options.cpus_per_task}"],
        "mem": None if options.mem_gb is None else f"{round(options.mem_gb * 1024)}M",
        "time": options.timeout_min,
        "signal_delay_s": options.signal_delay_s,
        "array_parallelism": options.array_parallelism or 10**6,
        "setup": list(options.setup) or None,
        "dependency": f"afterany:{previous}" if previous and options.array_parallelism else None,
        "additional_parameters": {**({"requeue": True} if options.requeue else {}), **options.additional_parameters},
    }
    # submitit names a workload characterization key, which clusters that check them do not know.
    return {"wckey": None, **{name: value for name, value in given.items() if value is not None}}


def _note(runs: Path, evaluations: Sequence[Evaluation], jobs: Sequence[str], folder: Path) -> None:
    entries = [
        sweeps.Entry(
            run=evaluation.run.name,
            task=evaluation.task,
            overrides=list(evaluation.overrides),
            job=job,
            log=str(log_file(folder, job)),
        )
        for evaluation, job in zip(evaluations, jobs, strict=True)
    ]
    sweeps.write(runs, f"slurm-{jobs[0].partition('_')[0]}", entries)


def _wait(waiting: Mapping[str, int], evaluations: Sequence[Evaluation], folder: Path) -> list[int]:
    """Wait until every job has ended, tell of each, and return the exit codes of all evaluations."""
    codes = [0] * len(evaluations)
    open_jobs, missed = dict(waiting), {}
    shortest, longest = _PAUSES
    began, answered = time.monotonic(), True
    while open_jobs:
        alive = queue.alive()
        if answered and alive is None:
            _say("squeue does not answer; the jobs go on, and it is asked again")
        answered = alive is not None
        for job, index in list(open_jobs.items()):
            code = _told(folder, job)
            if code is None and alive is not None and job not in alive:
                if time.monotonic() - missed.setdefault(job, time.monotonic()) >= _PATIENCE:
                    code = 0 if not left([evaluations[index]])[0] else Interrupted.exit_code
                    _tell(evaluations[index], job, code, folder, queue.state(job) or "ended without a word")
            elif code is not None:
                _tell(evaluations[index], job, code, folder, "")
            if code is not None:
                codes[index] = code
                del open_jobs[job]
        if open_jobs:
            time.sleep(min(longest, max(shortest, (time.monotonic() - began) / 20)))
    return codes


def _told(folder: Path, job: str) -> int | None:
    """Return the exit code that a job has left, or None where it has not."""
    try:
        return int(code_file(folder, job).read_text())
    except (OSError, ValueError):
        return None


def _tell(evaluation: Evaluation, job: str, code: int, folder: Path, state: str) -> None:
    if code == 0:
        print(evaluation.run, flush=True)
        return
    error = failures.read(RunFolder(evaluation.run)).get(evaluation.task, "")
    if state:
        said = f"was ended from outside ({state}); run the same command to go on"
    elif code == Interrupted.exit_code:
        said = "was interrupted; run the same command to go on"
    else:
        said = f"failed with exit code {code}{f': {error}' if error else ''}"
    _say(f"job {job} ({evaluation}) {said}; its log is {log_file(folder, job)}")


def _named(waiting: Mapping[str, int]) -> str:
    arrays = list(dict.fromkeys(job.partition("_")[0] for job in waiting))
    return f" ({', '.join(arrays)})" if arrays else ""


def _say(sentence: str) -> None:
    print(f"robusteval: {sentence}", file=sys.stderr, flush=True)
