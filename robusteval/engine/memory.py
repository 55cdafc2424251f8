"""Where the device has not enough memory: half the slots, as often as it takes, down to 16.

Slots change no result, so nothing is lost by it. What sufficed is kept in the run folder for every later process.
"""

import contextlib
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from robusteval.errors import RobustevalError
from robusteval.evidence import atomic
from robusteval.evidence.folder import RunFolder

FLOOR = 16
"""The fewest slots: with many networks every pass is padded to a multiple of 16."""

# What torch says, besides its own OutOfMemoryError, where memory ran out: the processor's allocator, CUDA outside of
# torch's allocator, Apple's.
_SAID = (
    "DefaultCPUAllocator",
    "not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)

T = TypeVar("T")


class OutOfMemory(RobustevalError):
    """A pass for which the device has not enough memory."""


def ran_out(error: BaseException) -> bool:
    """Return whether an error says that memory ran out."""
    if isinstance(error, OutOfMemory | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


def too_little(images: int) -> str:
    """Return the sentence for a device that cannot even hold so few images."""
    return (
        f"the device has not enough memory for {images} images at once, and fewer cannot be asked; use a device with "
        "more, or a smaller network"
    )


def half(slots: int) -> int | None:
    """Return half of the slots, a multiple of 16 and at least 16; None where there are no more than that already."""
    return None if slots <= FLOOR else max(FLOOR, slots // 2 // FLOOR * FLOOR)


def within(attempt: Callable[[int], T], slots: int, run: RunFolder) -> T:
    """Return what ``attempt(slots)`` does, with half the slots whenever memory runs out in it.

    Raises OutOfMemory where 16 are too many.
    """
    while True:
        try:
            return attempt(slots)
        except (OutOfMemory, RuntimeError) as error:
            if not ran_out(error):
                raise
            fewer = half(slots)
            if fewer is None:
                raise OutOfMemory(too_little(slots)) from error
        # Only out here is what the error's frames held given back.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        slots = _lower(run, slots, fewer)


def remembered(run: RunFolder) -> int | None:
    """Return how many slots sufficed when memory ran out in this run; None where it never has."""
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):  # damaged: found out again
        return max(FLOOR, int(json.loads(_file(run).read_text())["slots"]))
    return None


def _lower(run: RunFolder, slots: int, fewer: int) -> int:
    """Write down the fewer slots, tell the user if nobody has yet, and return them: another process may know better."""
    known = remembered(run)
    if known is not None and known <= fewer:
        return known
    atomic.write(_file(run), atomic.to_json({"slots": fewer}))
    if known is None:
        print(
            f"robusteval: not enough memory for {slots} images at once, so this run goes on with {fewer}, and with "
            f"fewer where needed, here and later ({_file(run)}); no result depends on it",
            file=sys.stderr,
        )
    return fewer


def _file(run: RunFolder) -> Path:
    return run.path / "slots.json"
