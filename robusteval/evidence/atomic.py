"""Files that are there whole or not at all.

A file is written aside in the same folder, flushed to the disk, then renamed; the folder is flushed too, so that the
name survives a power cut. A kill leaves at most a hidden ``.part`` file, which nothing reads.
"""

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robusteval.errors import RobustevalError, UserError

# What the system says of a folder that cannot be there, as opposed to a full or failing disk.
_WRONG_PATH = (errno.EACCES, errno.EEXIST, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EROFS)


def write(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, replacing what is there. Raises RobustevalError where the disk or folder fails."""
    with guarded(path):
        aside = _aside(path, data)
        try:
            os.replace(aside, path)
        except OSError:
            _drop(aside)
            raise
        _flush_folder(path.parent)


def create(path: Path, data: bytes) -> bool:
    """Write ``data`` to ``path`` unless it exists already; return whether this call made it.

    Of several processes that call this at once exactly one makes it. Raises RobustevalError as ``write`` does.
    """
    with guarded(path):
        aside = _aside(path, data)
        try:
            os.link(aside, path)
        except FileExistsError:
            return False
        finally:
            _drop(aside)
        _flush_folder(path.parent)
    return True


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises UserError for a wrong place, RobustevalError for a failing disk."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        kind = UserError if error.errno in _WRONG_PATH else RobustevalError
        raise kind(
            f"the folder {path} cannot be made ({error.strerror}); mend that, or name another place by runs.dir=FOLDER"
        ) from error


def refuse_vanished(folder: Path) -> None:
    """Raise RobustevalError where a run's folder is gone: made again by the next write it would lack its plan."""
    if not folder.is_dir():
        raise RobustevalError(
            f"{folder} vanished while it was being written to; bring it back, or run the same command again to start "
            "anew"
        )


def to_json(value: Any) -> bytes:
    """Return strict, indented JSON: floats at full precision, no NaN."""
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def sha256(data: bytes) -> str:
    """Return the hex digest."""
    return hashlib.sha256(data).hexdigest()


def _aside(path: Path, data: bytes) -> Path:
    aside = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.part"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        _drop(aside)
        raise
    return aside


def _drop(aside: Path) -> None:
    with contextlib.suppress(OSError):  # nobody reads it, and why it is to go matters more
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Tell in one sentence, as RobustevalError, where the system does not let ``path`` be written in the block."""
    try:
        yield
    except OSError as error:
        raise RobustevalError(
            f"{path} could not be written ({error.strerror}); mend that and run the same command to go on, nothing "
            "finished is lost"
        ) from error


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
