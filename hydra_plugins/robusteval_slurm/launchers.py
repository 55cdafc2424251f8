"""``hydra/launcher=slurm`` and ``hydra/launcher=local``: the evaluations of a sweep as jobs, or as processes here."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class _Launcher(Launcher):
    """Hands the evaluations, composed and validated before, to ``launch`` in the module of the launcher's name."""

    name: str

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.task = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from robusteval.launch import launched

        codes = launched(
            self.name, self.task, self.options, slice(initial_job_idx, initial_job_idx + len(job_overrides))
        )
        return [_returned(overrides, code) for overrides, code in zip(job_overrides, codes, strict=True)]


class SlurmLauncher(_Launcher):
    """Job arrays of Slurm."""

    name = "slurm"


class LocalLauncher(_Launcher):
    """Processes of this machine."""

    name = "local"


def _returned(overrides: Sequence[str], code: int) -> JobReturn:
    done = JobReturn(overrides=overrides, task_name="robusteval", status=JobStatus.COMPLETED)
    done.return_value = code
    return done
