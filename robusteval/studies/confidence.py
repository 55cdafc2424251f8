"""How sure networks are of right and wrong answers, clean and attacked: the table and figure of all runs of a study."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from robusteval.evidence.folder import RunFolder
from robusteval.report.confidence_study import write
from robusteval.report.console import terminal


def report(runs: Sequence[Path]) -> list[Path]:
    """Write table and figure over ``runs`` beside them, print the table, and return the folder; only if all are done.

    Raises UserError where the runs are not on the same images, or not all under one threat.
    """
    complete = [path for path in runs if RunFolder(path).complete]
    if len(complete) < len(runs):
        terminal().print(f"{len(complete)} of {len(runs)} runs are complete; the same command goes on with the others")
        return []
    key = hashlib.sha256("\n".join(sorted(path.name for path in runs)).encode()).hexdigest()[:10]
    target = write(runs, runs[0].parent / f"confidence_study-{key}")
    terminal().print(f"written: {target}", soft_wrap=True)
    return [target]
