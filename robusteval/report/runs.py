"""The runs of a folder, from their files alone: which there are, and how far each has come."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from robusteval.errors import UserError
from robusteval.evidence import failures, lock, sweeps
from robusteval.evidence.folder import RunFolder

State = Literal["done", "running", "failed", "interrupted", "incomplete", "missing", "damaged"]
Format = Literal["table", "csv", "md"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come.

    ``done`` of ``planned`` chunks have all their stages; ``note`` says who is at work, what failed, or what to do.
    """

    folder: Path
    state: State
    done: int = 0
    planned: int = 0
    note: str = ""


def find(directory: Path) -> list[Path]:
    """Return the folders that hold a run.json: ``directory`` itself, or those in it.

    Raises UserError where ``directory`` is not a folder.
    """
    return [path for path in begun(directory) if (path / "run.json").is_file()]


def begun(directory: Path) -> list[Path]:
    """Return the folders that hold a run.json or the error of a run that failed before it had one, sorted.

    Raises UserError where ``directory`` is not a folder.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} is not a folder; name one that holds runs, or set ROBUSTEVAL_RUNS")
    if _is_run(directory):
        return [directory]
    return sorted(path for path in directory.iterdir() if not path.name.startswith(".") and _is_run(path))


def _is_run(path: Path) -> bool:
    return (path / "run.json").is_file() or any(path.glob("errors/*.txt"))


def survey(directory: Path) -> list[Progress]:
    """Return how far each run of a folder has come, with the Slurm jobs of what is open.

    Also of runs that a sweep planned there and nobody has begun: ``missing``. Raises UserError as ``find`` does.
    """
    folders = begun(directory)
    jobs: dict[str, list[str]] = {}
    for (name, _), entry in sweeps.read(directory.parent if folders == [directory] else directory).items():
        jobs.setdefault(name, []).extend([entry.job] if entry.job else [])
    found = [look(folder) for folder in folders]
    if folders != [directory]:
        unknown = jobs.keys() - {folder.name for folder in folders}
        found += [Progress(folder=directory / name, state="missing", note="not begun") for name in unknown]
    return [_with_jobs(one, jobs.get(one.folder.name, [])) for one in sorted(found, key=lambda one: one.folder)]


def _with_jobs(run: Progress, jobs: Sequence[str]) -> Progress:
    if not jobs or run.state == "done":
        return run
    named = f"Slurm job {jobs[0]}" if len(jobs) == 1 else f"{len(jobs)} Slurm jobs, {jobs[0]} to {jobs[-1]}"
    return replace(run, note="; ".join(filter(None, [run.note, named])))


def look(folder: Path) -> Progress:
    """Return how far a run has come, from its files alone.

    ``done`` when results.json is there, ``running`` while somebody alive holds a lock, ``failed`` where a task left an
    error, ``interrupted`` where a lock's holder is gone (killed, or the power was cut), otherwise ``incomplete``
    (stopped, or some shards were not started yet). The run's command, run again, goes on with each of them.
    """
    run, errors = RunFolder(folder), failures.read(RunFolder(folder))
    failed = "; ".join(f"{task}: {said}" if task != lock.PLAIN else said for task, said in errors.items())
    if not run.run_file.is_file():
        return _unplanned(run, failed)
    try:
        planned = run.run["plan"]["chunks"]
    except (UserError, KeyError) as error:
        return Progress(folder=folder, state="damaged", note=f"run.json cannot be used: {error}")
    if run.complete:
        return Progress(folder=folder, state="done", done=planned, planned=planned)
    done = _chunks(run)
    locks = sorted(run.locks.glob("[!.]*")) if run.locks.is_dir() else []
    alive = [f"{path.name}: {holder}" for path in locks if (holder := lock.fresh(path)) is not None]
    if alive:
        note = "; ".join([*alive, *([f"failed: {failed}"] if failed else [])])
        return Progress(folder=folder, state="running", done=done, planned=planned, note=note)
    if failed:
        return Progress(folder=folder, state="failed", done=done, planned=planned, note=failed)
    if locks:
        note = f"killed ({', '.join(path.name for path in locks)}); run its command again"
        return Progress(folder=folder, state="interrupted", done=done, planned=planned, note=note)
    note = "all chunks are there: robusteval merge finishes it" if done == planned else "run its command again"
    return Progress(folder=folder, state="incomplete", done=done, planned=planned, note=note)


def _unplanned(run: RunFolder, failed: str) -> Progress:
    for path in sorted(run.locks.glob("[!.]*")):
        if (holder := lock.fresh(path)) is not None:
            return Progress(folder=run.path, state="running", note=f"{path.name}: {holder}")
    return Progress(folder=run.path, state="failed", note=failed)


def complete_runs(directory: Path) -> tuple[list[tuple[RunFolder, dict[str, Any]]], list[str]]:
    """Return the complete runs of a folder with their results, and a sentence on each that cannot be read."""
    complete, faults = [], []
    for run in (RunFolder(path) for path in find(directory)):
        if run.complete:
            try:
                complete.append((run, readable(run)))
            except UserError as error:
                faults.append(str(error))
    return complete, faults


def readable(run: RunFolder) -> dict[str, Any]:
    """Return results.json of a complete run. Raises UserError where it is not, or another version wrote it."""
    results = run.results()
    if results.get("schema") != 1:
        schema = results.get("schema")
        raise UserError(f"{run.results_file} has schema {schema}, this version reads 1; use the version that wrote it")
    return results


def _chunks(run: RunFolder) -> int:
    """Return how many chunks have a shard of every stage, by name alone: reading them all would take long."""
    there = [
        {path.name.partition("-")[0] for path in run.shards(stage).folder.glob("*.parquet")} for stage in run.stages
    ]
    return len(set.intersection(*there)) if there else 0


def asked(command: str, description: str, argv: Sequence[str]) -> tuple[Path, Format]:
    """Return the folder of runs that a command line names (else ROBUSTEVAL_RUNS or ``runs``), and the format."""
    parser = argparse.ArgumentParser(prog=f"robusteval {command}", description=description)
    default = Path(os.environ.get("ROBUSTEVAL_RUNS") or "runs")
    parser.add_argument(
        "directory", nargs="?", type=Path, default=default, help=f"folder of runs, or a run ({default})"
    )
    parser.add_argument("--format", choices=("table", "csv", "md"), default="table", help="csv has all digits (table)")
    given = parser.parse_args(argv)
    return given.directory, given.format
