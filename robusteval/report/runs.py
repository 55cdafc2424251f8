"""The runs of a folder, from their files alone: which there are, and how far each has come."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robusteval.errors import UserError
from robusteval.evidence import lock
from robusteval.evidence.folder import RunFolder

State = Literal["done", "running", "failed", "damaged"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come: ``done`` of ``planned`` shards (one for each stage and chunk), and who is at work."""

    folder: Path
    state: State
    done: int = 0
    planned: int = 0
    note: str = ""


def find(directory: Path) -> list[Path]:
    """Return the folders that hold a run.json: ``directory`` itself, or those in it.

    Raises UserError where ``directory`` is not a folder.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} is not a folder; name one that holds runs, or set ROBUSTEVAL_RUNS")
    if (directory / "run.json").is_file():
        return [directory]
    return sorted(path.parent for path in directory.glob("*/run.json"))


def look(folder: Path) -> Progress:
    """Return how far a run has come. It is done when results.json is there, running while somebody holds a lock.

    Neither done nor running means failed: it was stopped or killed. Its command, run again, goes on with it.
    """
    run = RunFolder(folder)
    try:
        plan = run.run["plan"]
        planned = len(plan["stages"]) * plan["chunks"]
    except (UserError, KeyError) as error:
        return Progress(folder=folder, state="damaged", note=f"run.json cannot be used: {error}")
    if run.complete:
        return Progress(folder=folder, state="done", done=planned, planned=planned)
    done = len({(path.parent.name, path.name.partition("-")[0]) for path in (folder / "shards").glob("*/*.parquet")})
    locks = sorted(run.locks.glob("[!.]*")) if run.locks.is_dir() else []
    for path in locks:
        if (holder := lock.fresh(path)) is not None:
            return Progress(folder=folder, state="running", done=done, planned=planned, note=str(holder))
    note = "killed; run its command again" if locks else "stopped; run its command again"
    return Progress(folder=folder, state="failed", done=done, planned=planned, note=note)


def directory_of(command: str, description: str, argv: Sequence[str]) -> Path:
    """Return the folder of runs that a command line names; ROBUSTEVAL_RUNS or ``runs`` where it names none."""
    parser = argparse.ArgumentParser(prog=f"robusteval {command}", description=description)
    default = Path(os.environ.get("ROBUSTEVAL_RUNS") or "runs")
    parser.add_argument(
        "directory", nargs="?", type=Path, default=default, help=f"folder of runs, or a run ({default})"
    )
    return parser.parse_args(argv).directory
