"""Options of the launchers, set by ``hydra.launcher.KEY=VALUE``."""

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Gt


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """What each job of a sweep asks Slurm for; None is whatever the cluster gives unasked.

    ``array_parallelism`` is how many jobs of the sweep run at once. ``signal_delay_s`` seconds before ``timeout_min``
    ends a job it is told, and requeues itself, at most ``max_num_timeout`` times. ``setup`` are lines of the job's
    script before the evaluation, ``additional_parameters`` any other options of sbatch. Without ``wait`` the command
    ends once the jobs are in the queue.
    """

    name: str = "robusteval"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gpus_per_node: Annotated[int, Ge(1)] | None = None
    cpus_per_task: Annotated[int, Ge(1)] | None = None
    mem_gb: Annotated[float, Gt(0)] | None = None
    timeout_min: Annotated[int, Ge(1)] = 60
    array_parallelism: Annotated[int, Ge(1)] | None = None
    signal_delay_s: Annotated[int, Ge(1)] = 120
    max_num_timeout: Annotated[int, Ge(0)] = 100
    requeue: bool = True
    setup: tuple[str, ...] = ()
    additional_parameters: dict[str, bool | int | float | str] = field(default_factory=dict)
    wait: bool = True

    def __post_init__(self) -> None:
        if self.signal_delay_s >= 60 * self.timeout_min:
            raise ValueError(
                f"signal_delay_s={self.signal_delay_s} is no less than all of timeout_min={self.timeout_min}; a job "
                "would be told to stop as it begins"
            )
        for name in self.additional_parameters:
            if not re.fullmatch(r"[a-z][a-z-]*", name.replace("_", "-")):
                raise ValueError(f"additional_parameters: {name} is no option of sbatch; write it like nodelist")


@dataclass(frozen=True, kw_only=True)
class Local:
    """``processes`` is how many evaluations run at once; None: one for each GPU, without GPUs one for each core."""

    processes: Annotated[int, Ge(1)] | None = None


def options_of_launchers() -> list[str]:
    """Return the names of all options of our launchers."""
    return [one.name for kind in (Slurm, Local) for one in dataclasses.fields(kind)]
