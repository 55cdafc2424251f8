"""Files that are there whole or not at all.

A file is written aside in the same folder, flushed to the disk, then renamed; the folder is flushed too, so that the
name survives a power cut. A kill leaves at most a hidden ``.part`` file, which nothing reads.
"""

import errno
import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

from robusteval.errors import RobustevalError, UserError

# What the system says of a folder that cannot be there, as opposed to a full or failing disk.
_WRONG_PATH = (errno.EACCES, errno.EEXIST, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EROFS)


def write(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, replacing what is there."""
    aside = _aside(path, data)
    os.replace(aside, path)
    _flush_folder(path.parent)


def create(path: Path, data: bytes) -> bool:
    """Write ``data`` to ``path`` unless it exists already; return whether this call made it."""
    aside = _aside(path, data)
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    finally:
        aside.unlink()
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


def to_json(value: Any) -> bytes:
    """Return strict, indented JSON: floats at full precision, no NaN."""
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def sha256(data: bytes) -> str:
    """Return the hex digest."""
    return hashlib.sha256(data).hexdigest()


def _aside(path: Path, data: bytes) -> Path:
    aside = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise RobustevalError(
            f"{path} could not be written ({error.strerror}); mend that and run the same command to go on, nothing "
            "finished is lost"
        ) from error
    return aside


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
