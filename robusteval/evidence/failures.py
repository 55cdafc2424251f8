"""Why a run ended by an error: one sentence for each of its tasks, in ``errors/``, gone once the task succeeds."""

import contextlib
import os
import re
from collections.abc import Iterator

from robusteval.errors import RobustevalError
from robusteval.evidence import atomic
from robusteval.evidence.folder import RunFolder
from robusteval.evidence.lock import Held

_LONGEST = 1000  # characters: a sentence, not a log
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW", re.IGNORECASE)


@contextlib.contextmanager
def recorded(run: RunFolder, task: str, *, begin: bool) -> Iterator[None]:
    """Write the last line of an error that ends the block into ``errors/<task>.txt``, and remove it if none does.

    Where there is no run folder yet, one is begun for it only if ``begin``: whoever waits for the command sees the
    error anyway. That another process is at work, or an interruption, is no failure.
    """
    try:
        yield
    except Held:
        raise
    except Exception as error:
        with contextlib.suppress(RobustevalError, OSError):  # the error itself matters more
            if begin or run.path.is_dir():
                atomic.write(run.errors / f"{task}.txt", f"{sentence(error)}\n".encode())
        raise
    with contextlib.suppress(OSError):
        (run.errors / f"{task}.txt").unlink(missing_ok=True)


def forget(run: RunFolder) -> None:
    """Remove all errors of a run that is complete now, and their folder."""
    with contextlib.suppress(OSError):
        for path in run.errors.glob("*.txt"):
            path.unlink(missing_ok=True)
        run.errors.rmdir()


def read(run: RunFolder) -> dict[str, str]:
    """Return the sentence of each task that failed and has not succeeded since."""
    found = {}
    for path in sorted(run.errors.glob("*.txt")):
        with contextlib.suppress(OSError):  # it succeeded just now
            found[path.stem] = path.read_text(errors="replace").strip()
    return found


def sentence(error: Exception) -> str:
    """Return an error on one line, without the values of variables of the environment that look like secrets."""
    said = " ".join(str(error).split())
    if not isinstance(error, RobustevalError):
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= 8:
            said = said.replace(value, "***")
    return said[:_LONGEST]
