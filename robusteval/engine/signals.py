"""Ctrl-C and SIGTERM: stop at once, leave nothing broken, exit 75. A second one kills."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from robusteval.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_UNANSWERED = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn the signals into ``Interrupted`` while the block runs.

    Every file of a run is whole or absent at any moment, so raising anywhere is safe; what was not written is computed
    again by the next run. A signal that somebody else answers stays theirs: in a job of Slurm SIGTERM is let pass,
    since a job that ended by it would not be requeued.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    current = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in current.items() if handler in _UNANSWERED}

    def stop(number: int, _frame: FrameType | None) -> None:
        for other in before:
            signal.signal(other, signal.SIG_DFL)
        raise Interrupted(signal.Signals(number).name)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
