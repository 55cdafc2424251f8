"""Where, when and with what a run was made."""

import datetime
import importlib.metadata
import os
import platform
import shlex
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from robusteval import __version__

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "hydra-core", "pyarrow", "safetensors")


def provenance(command: Sequence[str], device: torch.device) -> dict[str, Any]:
    """Return versions, machine and command. Nothing here decides a result, and no secret is in it."""
    return {
        "command": "robusteval " + shlex.join(command) if command else "robusteval",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "robusteval": __version__,
        "git": _commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the checkout that runs, with ``+`` where it was changed; None where it is no checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        run = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() or None
