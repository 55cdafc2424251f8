"""A sweep over processes of this machine: one evaluation each, so that one which is killed costs no other."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from robusteval.engine.signals import interruptible
from robusteval.errors import Interrupted
from robusteval.evidence import atomic, failures, sweeps
from robusteval.evidence.folder import RunFolder
from robusteval.launch.evaluation import Evaluation
from robusteval.launch.left import left
from robusteval.launch.options import Local

_PAUSE = 0.1  # seconds between two looks at the processes
_PATIENCE = 20.0  # seconds that a process has to end after it was told to


@dataclass(frozen=True)
class Running:
    """One process at work: on which evaluation of the sweep, in which of the places."""

    index: int
    place: int
    process: "subprocess.Popen[bytes]"


def launch(evaluations: Sequence[Evaluation], options: Local) -> list[int]:
    """Run the evaluations that are not done in processes of their own; return the exit code of each.

    Ctrl-C and SIGTERM end all of them in order and raise Interrupted.
    """
    codes = [0] * len(evaluations)
    waiting: deque[int] = deque()
    for index, wanted in enumerate(left(evaluations)):
        if wanted:
            waiting.append(index)
        else:
            print(evaluations[index].run, flush=True)
    gpus = _gpus()
    processes = min(options.processes or gpus or _cores(), len(waiting))
    places = deque(range(processes))
    running: list[Running] = []
    with interruptible(), _ended(running):
        while waiting or running:
            while waiting and places:
                index, place = waiting.popleft(), places.popleft()
                running.append(Running(index, place, _start(evaluations[index], place, processes, gpus)))
            time.sleep(_PAUSE)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                places.append(one.place)
                codes[one.index] = _told(evaluations[one.index], one.process.returncode)
    return codes


def _start(evaluation: Evaluation, place: int, processes: int, gpus: int) -> "subprocess.Popen[bytes]":
    log = log_file(evaluation)
    atomic.make_folder(log.parent)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "robusteval.launch.child"],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env={**os.environ, **environment(evaluation, place, processes, gpus)},
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it ended just now, as we see next
        process.stdin.write(json.dumps(evaluation.plain()).encode() + b"\n")
        process.stdin.flush()
    return process


def environment(evaluation: Evaluation, place: int, processes: int, gpus: int) -> dict[str, str]:
    """Return the variables of a process: its share of the cores, and a GPU of its own where it would take the first."""
    set_here: dict[str, str] = {}
    if "OMP_NUM_THREADS" not in os.environ:
        set_here["OMP_NUM_THREADS"] = str(max(1, _cores() // processes))
    runtime = evaluation.config.runtime
    if gpus > 1 and runtime.workers == 1 and runtime.device in ("auto", "cuda"):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(number) for number in range(gpus)]
        set_here["CUDA_VISIBLE_DEVICES"] = names[place % gpus]
    return set_here


def log_file(evaluation: Evaluation) -> Path:
    """Return the file with all that an evaluation's process writes."""
    runs = Path(evaluation.config.runs.dir)
    return runs / sweeps.FOLDER / "local" / f"{evaluation.run.name}-{evaluation.task}.log"


def _told(evaluation: Evaluation, code: int) -> int:
    """Say how a process ended that left no run, or print the run; return the exit code of the evaluation."""
    if code == 0:
        print(evaluation.run, flush=True)
        return 0
    error = failures.read(RunFolder(evaluation.run)).get(evaluation.task, "")
    if code < 0:
        said = f"was killed by {signal.Signals(-code).name}; run the same command to go on"
    elif code == Interrupted.exit_code:
        said = "was interrupted; run the same command to go on"
    else:
        said = f"failed with exit code {code}{f': {error}' if error else ''}"
    print(f"robusteval: {evaluation} {said}; its log is {log_file(evaluation)}", file=sys.stderr, flush=True)
    return Interrupted.exit_code if code < 0 else code


@contextlib.contextmanager
def _ended(running: Sequence[Running]) -> Iterator[None]:
    """End the processes that are still at work when the block ends, however it ends."""
    try:
        yield
    finally:
        for one in running:
            one.process.terminate()
        until = time.monotonic() + _PATIENCE
        for one in running:
            try:
                one.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
