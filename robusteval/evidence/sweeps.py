"""What sweeps planned in a folder of runs, and which Slurm job computes what: small files in ``.sweep/``.

One file for the plan of each sweep, one for each submission; nothing depends on them but what ``status`` tells, and
that a job which still waits in the queue is not submitted twice.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robusteval.evidence import atomic

FOLDER = ".sweep"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One evaluation: the name of its run's folder, its share of the run, and its Slurm job with the log of it."""

    run: str
    task: str
    overrides: list[str]
    job: str | None = None
    log: str | None = None


def write(runs: Path, name: str, entries: Sequence[Entry]) -> Path:
    """Write one file ``.sweep/<name>.json`` in a folder of runs. Raises RobustevalError where the disk fails."""
    folder = runs / FOLDER
    atomic.make_folder(folder)
    path = folder / f"{name}.json"
    value = {"written": time.time(), "evaluations": [dataclasses.asdict(entry) for entry in entries]}
    atomic.write(path, atomic.to_json(value))
    return path


def read(runs: Path) -> dict[tuple[str, str], Entry]:
    """Return what is known of each (run, task), by the newest file that names a job for it, if any does."""
    files: list[tuple[bool, float, list[Entry]]] = []
    for path in (runs / FOLDER).glob("*.json"):
        try:
            value = json.loads(path.read_bytes())
            entries = [Entry(**entry) for entry in value["evaluations"]]
            files.append((any(entry.job for entry in entries), float(value["written"]), entries))
        except (OSError, ValueError, TypeError, KeyError):  # not ours, or gone: it tells nothing
            continue
    return {
        (entry.run, entry.task): entry for *_, entries in sorted(files, key=lambda file: file[:2]) for entry in entries
    }
