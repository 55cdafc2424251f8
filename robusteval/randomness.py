"""Randomness as a function: every number follows from (seed, sample, attack, restart, target, step) alone.

A counter-based generator (Philox 4x64, Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405) is keyed by seed
and sample id, and its counter starts at a place given by the rest. So a draw does not depend on the batch, the order,
the device, or on what ran before. Numbers are drawn on the host, so that every device sees the same ones.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

Kind = Literal["uniform", "normal"]
_MASK = (1 << 64) - 1


@functools.lru_cache(maxsize=256)
def stream(name: str) -> int:
    """Return the 64-bit stream number of an attack's name, the same in every process and version of Python."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def generator(
    seed: int, sample: int, name: str, restart: int = 0, target: int = 0, step: int = 0
) -> np.random.Generator:
    """Return the generator of one (seed, sample, name, restart, target, step).

    The lowest of the four counter words is left to Philox, which counts its blocks of four numbers there.
    """
    counter, key = _place(seed, sample, name, restart, target, step)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _place(seed: int, sample: int, name: str, restart: int, target: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the (counter, key) at which the numbers begin."""
    # As uint64: of a plain list that holds a number from 2^63 on, numpy would make float64 and round it.
    counter = np.array([0, step & _MASK, ((restart << 32) | target) & _MASK, stream(name)], dtype=np.uint64)
    return counter, np.array([seed & _MASK, sample & _MASK], dtype=np.uint64)


def draw(
    shape: Sequence[int],
    *,
    seed: int,
    samples: Sequence[int],
    name: str,
    restarts: Sequence[int],
    targets: Sequence[int],
    step: int = 0,
    kind: Kind = "uniform",
) -> np.ndarray:
    """Draw float32 numbers of shape [samples, *shape], one independent stream a row.

    ``kind`` is ``uniform`` on [0, 1) or standard ``normal``.
    """
    out = np.empty((len(samples), *shape), dtype=np.float32)
    if not len(samples):
        return out
    # One generator for all rows, moved from place to place: to make one takes ten times as long.
    bits = np.random.Philox(key=0)
    source, start = np.random.Generator(bits), bits.state
    for row, sample, restart, target in zip(out, samples, restarts, targets, strict=True):
        counter, key = _place(seed, int(sample), name, int(restart), int(target), step)
        start["state"] = {"counter": counter, "key": key}
        bits.state = start
        if kind == "uniform":
            source.random(dtype=np.float32, out=row)
        else:
            source.standard_normal(dtype=np.float32, out=row)
    return out


def subset(total: int, n: int, seed: int) -> np.ndarray:
    """Return ``n`` of ``range(total)`` without replacement, in ascending order: a seeded subset of a dataset."""
    chosen = generator(seed, 0, "robusteval.subset").permutation(total)[:n]
    return np.sort(chosen)
