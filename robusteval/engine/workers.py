"""Several processes for the chunks of one run: started, given chunks as they come free, and ended.

Each has a pipe of its own and no lock is shared, so a worker that is killed anywhere holds up nobody. A worker without
work ends when its pipe is closed, one that is to stop in its midst by SIGKILL: every file of a run is whole or absent.
"""

import contextlib
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import ModuleType

import torch

from robusteval.config import Config
from robusteval.engine import worker
from robusteval.engine.worker import Message, Task
from robusteval.errors import RobustevalError
from robusteval.evidence.folder import RunFolder

_PATIENCE = 10.0  # seconds that a worker without work has to end in order


def share(
    config: Config,
    run: RunFolder,
    tasks: Sequence[Task],
    devices: Sequence[torch.device],
    tick: Callable[[int], None],
    enough: Callable[[], bool],
) -> None:
    """Compute chunks of a run in a process for each of ``devices``; a slow chunk holds up none but its own.

    No other is begun once ``enough`` are there.

    Raises what a worker met where that is for the user, and RobustevalError where one died. What the others have
    finished by then is on the disk.
    """
    if devices[0].type == "cuda":
        torch.cuda.empty_cache()  # what the checks before took on this GPU is for its worker now
    waiting = deque(tasks)
    crew: dict[Connection, SpawnProcess] = {}
    try:
        for device in devices:
            connection, process = _start(config, run, device)
            crew[connection] = process
        busy = set(crew)
        while busy:
            spoke = wait([*busy])
            for connection in [one for one in busy if one in spoke]:
                message = _heard(connection, crew[connection], run)
                if isinstance(message, Exception):
                    raise message
                if isinstance(message, int):
                    tick(message)
                elif waiting and not enough():
                    with contextlib.suppress(ConnectionError):  # it died just now, as we hear next
                        connection.send(waiting.popleft())
                else:
                    busy.discard(connection)
                    connection.close()
        for process in crew.values():
            process.join(_PATIENCE)
    finally:
        for connection, process in crew.items():
            process.kill()
            process.join()
            connection.close()


def _start(config: Config, run: RunFolder, device: torch.device) -> tuple[Connection, SpawnProcess]:
    # Not forked: neither CUDA nor torch's threads survive that.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with theirs, _deaf(), _nameless():
        process = context.Process(target=worker.main, args=(theirs, config.plain(), run.path, str(device)))
        try:
            process.start()
        except OSError as error:
            raise RobustevalError(
                f"{run.path}: a worker could not be started ({error.strerror}); run the same command with fewer "
                "runtime.workers to go on"
            ) from error
    return ours, process


def _heard(connection: Connection, process: SpawnProcess, run: RunFolder) -> Message:
    """Return a worker's next message. Raises RobustevalError where there will be none."""
    try:
        return connection.recv()
    except (EOFError, OSError):  # the latter in the midst of a message
        process.join()
    code = process.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    hint = " (where memory ran out, fewer runtime.workers need less)" if code == -signal.SIGKILL else ""
    raise RobustevalError(
        f"{run.path}: a worker (process {process.pid}) {how}{hint}; run the same command to go on, what is finished is "
        "kept"
    )


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Let a process that is started meanwhile never hear Ctrl-C, SIGTERM, or SIGUSR2 (Slurm: your time is nearly up).

    They reach whole groups of processes; answering them is the parent's part. They are blocked, not ignored, so that
    the parent misses none in between.
    """
    resource_tracker.ensure_running()  # starting it ends by unblocking these two signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _nameless() -> Iterator[None]:
    """Hide the main module: a process that is started meanwhile would run it again, and needs nothing of it.

    It may be a script without the usual guard, or come from standard input, which cannot be read again.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
