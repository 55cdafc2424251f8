"""Errors that a user can act on: one sentence each, and an exit code.

The sentence says what was wrong, what came, and what to do. The command line prints it without a traceback.
"""

import difflib
from collections.abc import Iterable


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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
