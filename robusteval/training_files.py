"""What every training shares: one thread, a folder that is known to be writable before, files that are whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from robusteval.errors import UserError


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread until the block ends.

    Sums over several threads round differently, so that the weights would depend on the machine's number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def writable(folder: Path, named: str) -> None:
    """Raise UserError now rather than after the training; ``named`` is how the folder was named."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".robusteval-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{named}: cannot write there ({error.strerror}); name another folder") from error


def write(path: Path, content: bytes) -> None:
    """Write a file so that its name never stands for half of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise UserError(f"cannot write {path} ({error.strerror}); name another folder to write to") from error
