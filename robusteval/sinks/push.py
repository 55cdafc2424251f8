"""Sending a finished run: the one way in for evaluations, and the command ``robusteval push RUN``."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from robusteval.errors import RobustevalError, UserError
from robusteval.evidence import atomic
from robusteval.report.console import sink_in_words
from robusteval.sinks import wandb
from robusteval.sinks.options import Logger, NoLogger, WandbLogger


def prepare(logger: Logger) -> None:
    """Look, before the attack, whether a sink that the user requires can be reached.

    Raises RobustevalError within 30 s where it cannot; costs nothing where ``required`` is not set.
    """
    if isinstance(logger, WandbLogger) and logger.required:
        wandb.require(logger)


def push(logger: Logger, folder: Path) -> dict[str, Any]:
    """Send a finished run and return where it went, {name, mode, where, errors}, also noted in its results.json.

    Never raises for what a sink does: the results are on disk.
    """
    if isinstance(logger, NoLogger):
        return {"name": logger.name, "mode": "none", "where": None, "errors": []}
    sink = wandb.push(logger, folder)
    path = folder / "results.json"
    results = json.loads(path.read_text())
    others = [entry for entry in results["sinks"] if entry["name"] != sink["name"]]
    atomic.write(path, atomic.to_json({**results, "sinks": [*others, sink]}))
    return sink


def main(argv: Sequence[str]) -> int:
    """Run ``robusteval push RUN [--mode ...] [--project ...] [--entity ...] [--group ...]``."""
    parser = argparse.ArgumentParser(
        prog="robusteval push", description="Send a finished run to Weights & Biases (again)."
    )
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--mode", choices=("auto", "online", "offline"))
    for name in ("project", "entity", "group"):
        parser.add_argument(f"--{name}")
    given = vars(parser.parse_args(argv))
    folder = given.pop("run")
    if not (folder / "results.json").is_file():
        raise UserError(
            f"{folder} holds no results.json, so it is no finished run; name the folder of one, see robusteval summary"
        )
    try:
        logger = dataclasses.replace(
            _configured(folder), **{name: value for name, value in given.items() if value is not None}
        )
    except ValueError as error:
        raise UserError(f"--{error}") from None
    sink = push(logger, folder)
    print(sink_in_words(sink, folder))
    if sink["errors"] or sink["mode"] in ("missing", "failed"):
        raise RobustevalError(
            f"{folder} was not sent as asked; its results are untouched, push again when that is mended"
        )
    return 0


def _configured(folder: Path) -> WandbLogger:
    """Return the logger of the run's own configuration; the defaults where it named none."""
    written = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")))
    options = written["logger"]
    return WandbLogger(**{**options, "tags": tuple(options["tags"])}) if options["name"] == "wandb" else WandbLogger()
