"""What Hydra runs for each combination of a sweep: by itself or in another process, as its launcher has it."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from robusteval.launch.evaluation import Evaluation, evaluate


class Task:
    """The task function of a sweep; ``evaluations`` are all of it, in the order in which Hydra numbers them.

    They are for launchers of our own. A launcher that takes the task itself to another process takes it without them.
    """

    def __init__(self, evaluations: Sequence[Evaluation]) -> None:
        self.evaluations = evaluations

    def __call__(self, config: DictConfig) -> int:
        """Run the evaluation of a composed configuration and return its exit code."""
        from hydra.core.hydra_config import HydraConfig

        return evaluate(
            {
                "mapping": OmegaConf.to_container(config, resolve=True),
                "overrides": list(HydraConfig.get().overrides.task),
            }
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"evaluations": []}
