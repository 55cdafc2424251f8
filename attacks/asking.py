"""Whether update rules may ask what is in a tensor: on a GPU a question waits until all work before it is done."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_MAY = ContextVar("may", default=True)


def may_ask() -> bool:
    """Return whether a question to a tensor is cheap, so that it pays where it saves work.

    Where it is not, the same numbers come by more work: all rows instead of those in question, all sweeps of a search
    instead of those until the last row is at its end.
    """
    return _MAY.get()


@contextlib.contextmanager
def unasked() -> Iterator[None]:
    """Let update rules run without questions until the block ends."""
    token = _MAY.set(False)
    try:
        yield
    finally:
        _MAY.reset(token)
