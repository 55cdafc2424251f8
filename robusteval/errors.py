"""Errors that a user can act on: one sentence each, and an exit code.

The sentence says what was wrong, what came, and what to do. The command line prints it without a traceback.
"""

import difflib
import errno
from collections.abc import Iterable

# What the system says of a path that cannot be used, whoever named it.
_WRONG_PATH = (errno.EACCES, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EROFS)


class RobustevalError(Exception):
    """An evaluation that could not be done: exit code 1."""

    exit_code = 1


class UserError(RobustevalError):
    """Wrong input (an option, a file, a model): exit code 2, raised before any work is lost."""

    exit_code = 2


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM: exit code 75, the same command goes on where this one stopped.

    Not an ``Exception``: nothing on the way up may take it for a failure of its own.
    """

    exit_code = 75


def told(error: RobustevalError | OSError | MemoryError) -> tuple[str, int]:
    """Return in one sentence what went wrong, and the exit code."""
    if isinstance(error, RobustevalError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError):
        return f"not enough memory ({error}); ask for less", RobustevalError.exit_code
    # A full disk, a folder that may not be written: nobody is helped by a traceback.
    code = UserError.exit_code if error.errno in _WRONG_PATH else RobustevalError.exit_code
    return f"{error.filename or 'file'}: {error.strerror or error}", code


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
