"""Progress on standard error: a bar on a terminal, otherwise one plain line every ten seconds."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

INTERVAL = 10.0  # seconds between plain lines: a log of a day stays readable

# Held by the progress that is shown. Two bars would overwrite each other, so an inner one stays silent.
_shown = threading.Lock()


class Advance(Protocol):
    """Count ``n`` more units as done; the ``note`` (for instance how many are broken) stands until the next one."""

    def __call__(self, n: int, note: str | None = None) -> None: ...


@contextmanager
def progress(total: int, label: str) -> Iterator[Advance]:
    """Show how much of ``total`` is done while the block runs, and yield the function that counts.

    Inside another progress nothing is shown: the outer one owns the line.
    """
    if not _shown.acquire(blocking=False):
        yield _silent
        return
    try:
        with bar(total, label, Console(stderr=True)) if sys.stderr.isatty() else plain(total, label) as advance:
            yield advance
    finally:
        _shown.release()


@contextmanager
def plain(
    total: int, label: str, *, interval: float = INTERVAL, clock: Callable[[], float] = time.monotonic
) -> Iterator[Advance]:
    """Write a line at most every ``interval`` seconds, and one when all is done; none where the block fails."""
    begun = last = clock()
    done, said = 0, ""

    def advance(n: int, note: str | None = None) -> None:
        nonlocal done, said, last
        done, said = done + n, said if note is None else note
        now = clock()
        if now - last >= interval and done < total:
            last = now
            left = f", {_clock((now - begun) / done * (total - done))} left" if done else ""
            _write(f"{label}: {done}/{total} ({done / total:.0%}), {_clock(now - begun)} gone{left}{_tail(said)}")

    yield advance
    _write(f"{label}: {done}/{total}, {_clock(clock() - begun)}{_tail(said)}")


@contextmanager
def bar(total: int, label: str, console: Console) -> Iterator[Advance]:
    """Draw a bar on a terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as drawn:
        task = drawn.add_task(label, total=total, note="")

        def advance(n: int, note: str | None = None) -> None:
            drawn.advance(task, n)
            if note is not None:
                drawn.update(task, note=note)

        yield advance


def _silent(n: int, note: str | None = None) -> None:
    """Count nothing: an outer progress is shown."""


def _tail(note: str) -> str:
    return f", {note}" if note else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _write(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
