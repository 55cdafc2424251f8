"""What Slurm says of jobs, by ``squeue`` and ``scontrol``: both work on clusters that keep no accounts (``sacct``)."""

import os
import re
import shutil
import subprocess

from robusteval.errors import UserError

_SECONDS = 60.0  # for one answer; a busy controller takes long, and is asked again
_LIMIT = 1000
"""Jobs in an array where the cluster does not say how many it takes; Slurm's own limit is 1001."""


def refuse_missing() -> None:
    """Raise UserError where this machine cannot submit to Slurm."""
    for name in ("sbatch", "squeue"):
        if shutil.which(name) is None:
            raise UserError(
                f"hydra/launcher=slurm: there is no {name} on this machine; run it on a login node of the cluster, or "
                "use hydra/launcher=local"
            )


def alive() -> set[str] | None:
    """Return the numbers (123, or 123_4 in an array) of this user's jobs that wait or run; None without an answer."""
    said = _ask("squeue", "--noheader", "--array", "--user", str(os.getuid()), "--format", "%i")
    return None if said is None else set(said.split())


def state(job: str) -> str:
    """Return how Slurm says that a job ended, such as CANCELLED or OUT_OF_MEMORY, or '' once it has forgotten it."""
    match = re.search(r"\bJobState=(\w+)", _ask("scontrol", "show", "job", "--oneliner", job) or "")
    return match[1] if match else ""


def array_limit() -> int:
    """Return how many jobs this cluster takes in one array."""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config") or "", re.MULTILINE)
    # It is the first number that no task may have, and tasks count from 0.
    return max(1, int(match[1])) if match else _LIMIT


def _ask(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout
