"""Evaluations as processes of their own that cost no imports: forks of a process that has run one already.

Programs that only fork call ``prepare`` first; a process of the test suite is ready as it is.
"""

import contextlib
import gc
import io
import os
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

# Not used here: imported before the forks, since each child would spend seconds on them.
import robusteval.attacks.autoattack
import robusteval.attacks.solarize  # noqa: F401
from robusteval.cli import run as command_line
from robusteval.report.canvas import FigureCanvasAgg


def prepare() -> None:
    """Make this process one that can be forked: one thread, everything imported, nothing painted."""
    # A thread pool does not survive a fork, and bits do not depend on it.
    torch.set_num_threads(1)
    # Painting would be most of a run's life, so that most kills would fall there.
    setattr(FigureCanvasAgg, "print_png", lambda _, buffer, **__: Image.new("L", (1, 1)).save(buffer, format="png"))  # noqa: B010
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        small = ["model=mnist_cnn", "attack=pgd", "attack.steps=1", "dataset.n=16", "logger=none", f"runs.dir={folder}"]
        if command_line(small) != 0:
            raise SystemExit("the first run failed")
    gc.collect()
    gc.freeze()  # or every child would copy the pages of all objects to count what it never frees


def start(arguments: list[str], log: Path) -> int:
    """Fork a child that runs the command line, and return its process id; what it says is added to ``log``."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            said = log.open("a", buffering=1)
            for number in (1, 2):
                os.dup2(said.fileno(), number)
            sys.stdout = sys.stderr = said  # of a test they would be what pytest captures with
            code = command_line(arguments)
        finally:
            os._exit(code)
    return child


def wait(child: int) -> int:
    """Return the exit code of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
