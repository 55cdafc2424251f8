"""Sweeps, by Hydra's sweeper and launchers; and Hydra's own ways of showing a configuration."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from omegaconf import DictConfig

from robusteval.compose import COMPLAINTS, application, composed, parse, sentence, sweep
from robusteval.errors import Interrupted, RobustevalError, UserError
from robusteval.launch.evaluation import Evaluation, together
from robusteval.launch.task import Task


def multirun(
    overrides: Sequence[str], config_dir: str | None, then: Callable[[list[Path]], object] | None = None
) -> int:
    """Run every combination, each validated before the first begins; return the exit code of the whole.

    ``then`` is called with the folders of the runs at the end, whatever became of them, unless they were interrupted.
    One evaluation that fails does not end the others. The code is 0 if all are done, 75 if any was interrupted, else
    the largest.
    """
    combinations = sweep(overrides)
    evaluations: list[Evaluation] = []
    for combination in combinations:
        try:
            evaluations.append(_planned(combination, config_dir))
        except UserError as error:
            raise UserError(
                f"{error} (in the evaluation {' '.join(combination)})" if len(combinations) > 1 else str(error)
            ) from error
    launcher = _launcher(overrides)
    anew = {one.run: one for one in evaluations if one.config.runs.fresh and (launcher or one.config.runtime.shard)}
    if anew:  # here, once: a job that is requeued must not start anew again
        _start_anew(anew)
        overrides = [*overrides, "runs.fresh=false"]
        evaluations = [_planned([*one.overrides, "runs.fresh=false"], config_dir) for one in evaluations]
    _note(evaluations)
    try:
        returned = _run(Task(evaluations), overrides, config_dir)
    except HydraException as error:
        raise UserError(sentence(error, overrides, config_dir)) from error
    except Exception as error:
        if not type(error).__module__.startswith("submitit"):
            raise
        raise RobustevalError(
            f"hydra/launcher={launcher} gave up ({' '.join(str(error).split())[:300]}); what is finished is kept, and "
            "hydra/launcher=slurm waits for the others"
        ) from error
    code = together([job.return_value for batch in returned for job in batch])
    if then is not None and code != Interrupted.exit_code:
        then(list(dict.fromkeys(one.run for one in evaluations)))
    return code


def show(arguments: Sequence[str]) -> int:
    """Let Hydra answer --cfg, --info and the like."""

    def task(_config: DictConfig) -> None:
        raise UserError("that flag shows nothing; see robusteval --hydra-help")

    try:
        _hydra(task, list(arguments))
    except COMPLAINTS as error:
        raise UserError(sentence(error, [argument for argument in arguments if "=" in argument])) from error
    return 0


def _planned(overrides: Sequence[str], config_dir: str | None) -> Evaluation:
    """Return one evaluation of a sweep. Raises UserError where it cannot be meant."""
    evaluation = Evaluation(mapping=composed(overrides, config_dir), overrides=list(overrides))
    _ = evaluation.config
    return evaluation


def _launcher(overrides: Sequence[str]) -> str | None:
    """Return the launcher that the overrides name; None where it is Hydra's own, which works in this process."""
    named = [one.value() for one in parse(overrides) if one.key_or_group == "hydra/launcher"]
    return str(named[-1]) if named and named[-1] != "basic" else None


def _start_anew(runs: Iterable[Path]) -> None:
    """Set aside, once for all shards and jobs, the runs that are to start anew."""
    from robusteval.engine.runner import start_anew
    from robusteval.evidence.folder import RunFolder

    for run in runs:
        start_anew(RunFolder(run))


def _note(evaluations: Sequence[Evaluation]) -> None:
    """Leave in each folder of runs what is planned there, for ``robusteval status``."""
    from robusteval.evidence import sweeps

    planned: dict[Path, list[sweeps.Entry]] = {}
    for one in evaluations:
        entry = sweeps.Entry(run=one.run.name, task=one.task, overrides=list(one.overrides))
        planned.setdefault(one.run.parent, []).append(entry)
    for runs, entries in planned.items():
        names = sorted(f"{entry.run} {entry.task}" for entry in entries)
        sweeps.write(runs, f"plan-{hashlib.sha256(chr(10).join(names).encode()).hexdigest()[:10]}", entries)


def _run(task: Task, overrides: Sequence[str], config_dir: str | None) -> list[list[JobReturn]]:
    """Let Hydra's sweeper and launcher run the task; return what came of each evaluation."""
    with application(overrides, config_dir) as (hydra, given):
        return hydra.multirun(config_name="config", task_function=task, overrides=given)


def _hydra(task: Callable[[DictConfig], Any], arguments: list[str]) -> None:
    """Run Hydra's own main on ``arguments``. Its errors reach us instead of being printed."""
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["robusteval", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(version_base="1.3", config_path="pkg://robusteval.conf", config_name="config")(task)()
    finally:
        sys.argv = before[0]
        if before[1] is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        else:
            os.environ["HYDRA_FULL_ERROR"] = before[1]
