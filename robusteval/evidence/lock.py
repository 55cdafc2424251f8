"""One process at a time in a share of a run: a lock with a heartbeat, taken over when its holder is gone.

The holder is gone when its process is (on this machine, by process id and start time), or when its heartbeat is older
than a minute. The check and the take-over happen under a short advisory file lock, which the kernel drops with its
process.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from robusteval.errors import RobustevalError
from robusteval.evidence import atomic

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0

PLAIN = "1-of-1"
"""The lock of a run that is not spread over shards."""
FINAL = "final"
"""The lock of whoever derives the results once every shard is there."""


class Held(RobustevalError):
    """A living process is at work where another wanted to begin."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock. ``host`` includes the process namespace, in which alone ``pid`` means anything."""

    host: str
    pid: int
    started: str
    slurm: str | None
    heartbeat: float

    def alive(self, now: float) -> bool:
        if self.host == _host():
            return _started(self.pid) == self.started
        return now - self.heartbeat < STALE_SECONDS

    def __str__(self) -> str:
        job = f", Slurm job {self.slurm}" if self.slurm else ""
        return f"{self.host.partition('/')[0]}, process {self.pid}{job}"


def read(path: Path) -> Holder | None:
    """Return who holds the lock, or None where nobody does or the file is damaged."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def fresh(path: Path) -> Holder | None:
    """Return the holder of a lock if it still lives."""
    holder = read(path)
    return holder if holder is not None and holder.alive(time.time()) else None


def refuse_held(folder: Path, names: Collection[str] | None = None) -> None:
    """Raise Held naming the holder where a living process holds one of the locks ``names`` (None: any) in a folder."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or (names is not None and path.name not in names):
            continue
        if (holder := fresh(path)) is not None:
            raise Held(f"{folder.parent} is being run by {holder}; {_advice(holder)}")


def _advice(holder: Holder) -> str:
    if holder.host == _host():
        return "wait for it, or stop it and run the same command again"
    silent = max(0, round(time.time() - holder.heartbeat))
    return (
        f"it gave a sign of life {silent} s ago on that machine: wait for it, or stop it there; {STALE_SECONDS:.0f} s "
        "after its last sign the same command takes over"
    )


@contextlib.contextmanager
def hold(folder: Path, name: str, against: Collection[str] | None = None) -> Iterator[Holder | None]:
    """Hold the lock ``folder/name`` while the block runs; yield who left it behind, None where nobody did.

    Raises Held naming the holder where one of the locks ``against`` (None: any in the folder) is held by a living
    process, RobustevalError where the folder cannot be written. A job of Slurm, which nobody watches, first waits for
    the next heartbeat of a holder on another machine: its own former life, or a job that was killed, gives none.
    """
    atomic.make_folder(folder)
    path = folder / name
    if "SLURM_JOB_ID" in os.environ:
        _wait_for_silent(folder, against)
    try:
        guard = (folder / ".guard").open("w")
    except OSError as error:
        raise RobustevalError(
            f"{folder} cannot be written ({error.strerror}); mend that and run the same command to go on, nothing "
            "finished is lost"
        ) from error
    with guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        refuse_held(folder, against)
        gone = read(path)
        _beat(path)
    done = threading.Event()
    thread = threading.Thread(target=_keep_beating, args=(path, done), daemon=True)
    thread.start()
    try:
        yield gone
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(OSError):  # a folder that became read-only must not hide why the block ended
            path.unlink(missing_ok=True)


def _wait_for_silent(folder: Path, names: Collection[str] | None) -> None:
    """Wait while a holder on another machine counts as alive and gives no sign of it: at most STALE_SECONDS."""
    first: dict[Path, float] = {}
    while True:
        silent = False
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or (names is not None and path.name not in names):
                continue
            holder = fresh(path)
            if holder is not None and holder.host != _host():
                silent |= holder.heartbeat == first.setdefault(path, holder.heartbeat)
        if not silent:
            return
        time.sleep(1)


def _keep_beating(path: Path, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_SECONDS):
        # A full disk may have room again at the next beat; what it costs is said where evidence is written. A folder
        # that is gone must not come back with nothing but a lock in it.
        with contextlib.suppress(RobustevalError, OSError):
            if path.parent.is_dir():
                _beat(path)


def _beat(path: Path) -> None:
    me = Holder(
        host=_host(),
        pid=os.getpid(),
        started=_started(os.getpid()),
        slurm=os.environ.get("SLURM_JOB_ID"),
        heartbeat=time.time(),
    )
    atomic.write(path, json.dumps(asdict(me)).encode())


def _host() -> str:
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{os.readlink(namespace) if namespace.exists() else ''}"


def _started(pid: int) -> str:
    """Return when a process started (a number is used again after a while), or '' where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _running_without_proc(pid)
    return "" if fields[0] == "Z" else fields[19]


def _running_without_proc(pid: int) -> str:
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "running"
