"""Runs the shards of an evaluation as processes at once, kills some, runs them again; a program for test_shards.py.

As in kill_driver.py the parent imports everything once and forks. Prints how many rounds there were, and kills.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from PIL import Image

# Not used here: imported before the forks, since each child would spend seconds on them.
import robusteval.attacks.pgd
import robusteval.datasets.mnist_5k
import robusteval.engine.runner
import robusteval.models.bundled  # noqa: F401
from robusteval.cli import run as command_line
from robusteval.report.canvas import FigureCanvasAgg

SHARDS = 3

# One thread: a thread pool does not survive a fork, and bits do not depend on it.
torch.set_num_threads(1)
# Painting would be most of a run's life, so that most kills would fall there.
setattr(FigureCanvasAgg, "print_png", lambda _, buffer, **__: Image.new("L", (1, 1)).save(buffer, format="png"))  # noqa: B010


def start(arguments: list[str], log: Path) -> int:
    """Fork a child that runs the command line, and return its process id."""
    child = os.fork()
    if child == 0:
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        code = 1
        try:
            code = command_line(arguments)
        finally:
            os._exit(code)
    return child


def wait(child: int) -> int:
    """Return the exit code of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(base: Path, rounds: int, overrides: list[str]) -> None:
    moments, killed, number = random.Random(5), 0, 0
    while number < rounds or not killed:
        number += 1
        log = base / f"log-{number}"
        shares = [
            [*overrides, f"runs.dir={base / f'round-{number}'}", f"runtime.shard={i}/{SHARDS}"]
            for i in range(1, SHARDS + 1)
        ]
        children = [start(arguments, log) for arguments in shares]
        time.sleep(moments.uniform(0.2, 1.0))
        os.kill(children[number % SHARDS], signal.SIGKILL)
        codes = [wait(child) for child in children]
        killed += codes.count(-signal.SIGKILL)
        again = [arguments for arguments, code in zip(shares, codes, strict=True) if code == -signal.SIGKILL]
        if set(codes) - {0, -signal.SIGKILL} or any(wait(start(arguments, log)) for arguments in again):
            raise SystemExit(f"round {number}: codes {codes}; {log.read_text()}")
    print(json.dumps({"rounds": number, "killed": killed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
