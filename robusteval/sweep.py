"""Sweeps, by Hydra's sweeper and launchers; and Hydra's own ways of showing a configuration."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from robusteval.compose import COMPLAINTS, composed, sentence, sweep
from robusteval.errors import RobustevalError, UserError, told

if TYPE_CHECKING:  # it imports torch
    from robusteval.config import Config


def multirun(overrides: Sequence[str], config_dir: str | None) -> int:
    """Run every combination, each validated before the first begins; return the exit code of the whole.

    One evaluation that fails does not end the others. Returns the largest exit code of any.
    """
    from robusteval.config import build

    combinations = sweep(overrides)
    anew: dict[str, Config] = {}
    for combination in combinations:
        try:
            config = build(composed(combination, config_dir))
        except UserError as error:
            raise UserError(
                f"{error} (in the evaluation {' '.join(combination)})" if len(combinations) > 1 else str(error)
            ) from error
        if config.runs.fresh and config.runtime.shard is not None:
            anew[config.folder_name] = config
    if anew:
        _start_anew(anew.values())
        overrides = [*overrides, "runs.fresh=false"]
    codes: list[int] = []

    def task(config: DictConfig) -> int:
        codes.append(_one(OmegaConf.to_container(config, resolve=True)))
        return codes[-1]

    extra = [] if config_dir is None else ["--config-dir", str(Path(config_dir).resolve())]
    try:
        _hydra(task, ["--multirun", *extra, *overrides])
    except HydraException as error:
        raise UserError(sentence(error, overrides, config_dir)) from error
    return max(codes, default=0)


def show(arguments: Sequence[str]) -> int:
    """Let Hydra answer --cfg, --info and the like."""

    def task(_config: DictConfig) -> None:
        raise UserError("that flag shows nothing; see robusteval --hydra-help")

    try:
        _hydra(task, list(arguments))
    except COMPLAINTS as error:
        raise UserError(sentence(error, [argument for argument in arguments if "=" in argument])) from error
    return 0


def _start_anew(configs: Iterable["Config"]) -> None:
    """Set aside, once for all shards, the runs that are to start anew."""
    from robusteval.engine.runner import start_anew
    from robusteval.evidence.folder import RunFolder

    for config in configs:
        start_anew(RunFolder(Path(config.runs.dir) / config.folder_name))


def _one(mapping: Any) -> int:
    from robusteval.config import build
    from robusteval.engine.runner import evaluate

    try:
        from hydra.core.hydra_config import HydraConfig

        command = list(HydraConfig.get().overrides.task)
        print(evaluate(build(mapping), command=command, in_sweep=True), flush=True)
    except (RobustevalError, OSError, MemoryError) as error:
        if os.environ.get("ROBUSTEVAL_DEBUG"):
            raise
        sentence, code = told(error)
        print(f"robusteval: {sentence}", file=sys.stderr, flush=True)
        return code
    return 0


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
