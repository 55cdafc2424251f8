"""How long the processes of a run computed: a number each, since a run may be the work of many."""

import contextlib
import uuid

from robusteval.evidence import atomic
from robusteval.evidence.folder import RunFolder


def note(run: RunFolder, task: str, seconds: float) -> None:
    """Write down the seconds that one process of a task computed."""
    atomic.refuse_vanished(run.path)
    put(run, f"{task}-{uuid.uuid4().hex[:8]}", seconds)


def put(run: RunFolder, name: str, seconds: float) -> None:
    """Write down seconds under a name that nothing else in the run has."""
    atomic.write(run.seconds / f"{name}.txt", f"{seconds:.3f}\n".encode())


def total(run: RunFolder) -> float:
    """Return the seconds of all processes that came to their end; what was killed left none."""
    found = 0.0
    for path in sorted(run.seconds.glob("*.txt")):
        with contextlib.suppress(ValueError):  # it decides nothing
            found += float(path.read_text())
    return found
