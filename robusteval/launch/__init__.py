"""Launchers: the evaluations of a sweep as processes of this machine or jobs of Slurm. Imports no torch by itself."""

from collections.abc import Mapping
from typing import Any

from robusteval.errors import UserError


def launched(name: str, task: Any, options: Mapping[str, Any], which: slice) -> list[int]:
    """Let the launcher ``name`` run some evaluations of a sweep and return the exit code of each.

    Raises UserError for options that it does not have, and where it cannot work here.
    """
    from robusteval.config import construct
    from robusteval.launch import local, slurm
    from robusteval.launch.options import Local, Slurm
    from robusteval.launch.task import Task

    if not isinstance(task, Task):
        raise UserError(f"hydra/launcher={name} of robusteval runs nothing but robusteval's evaluations")
    evaluations = task.evaluations[which]
    if name == "slurm":
        return slurm.launch(evaluations, construct(Slurm, options, "hydra.launcher"))
    return local.launch(evaluations, construct(Local, options, "hydra.launcher"))
