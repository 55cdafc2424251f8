"""Options of an evaluation that belong to no model, dataset or attack."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

# Beyond this a number is a slip of the keyboard that would bring the machine down.
_MOST_WORKERS = 256
_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True, kw_only=True)
class Engine:
    """``slots`` and ``path`` change no result, ``oracle`` at most by a rounding; all else is part of a run's key.

    ``draws`` are the passes whose mean softmax judges an image where the model is randomised. ``mode`` says in which
    precision attacks search: float32 (``exact``), bfloat16 (``fast``: every success is verified in float32, but a
    number of its own), or bfloat16 first and then all of it in float32 on what still stands (``fast+standard``).
    ``oracle`` is the form of the model that they search. ``path`` is how often the host looks at what the device has
    found: after every iteration (``host``), or after several (``device``), which ``auto`` takes on a GPU. A randomised
    model is searched on the host path in any case, since what it draws depends on the order of its passes.
    """

    slots: Annotated[int, Ge(1)] | None = None
    chunk: Annotated[int, Ge(1)] | None = None
    stop: Literal["first", "never"] = "first"
    draws: Annotated[int, Ge(2)] = 20
    mode: Literal["exact", "fast", "fast+standard"] = "exact"
    oracle: Literal[
        "rule",
        "auto",
        "given",
        "stem",
        "folded",
        "folded_stem",
        "channels_last",
        "folded_channels_last",
        "folded_channels_last_stem",
    ] = "rule"
    path: Literal["auto", "host", "device"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where an evaluation runs; changes no result. ``threads`` are those of each of the ``workers``.

    ``shards`` is over how many tasks the chunks are spread, ``shard`` (such as 3/8) which of them this one is.
    """

    device: str = "auto"
    workers: Annotated[int, Ge(1)] = 1
    threads: Annotated[int, Ge(1)] | None = None
    shards: Annotated[int, Ge(1)] = 1
    shard: str | None = None

    def __post_init__(self) -> None:
        if self.shard is not None:
            number, count = self._numbers(self.shard)
            if not 1 <= number <= count or self.shards not in (1, count):
                whole = f" of runtime.shards={self.shards}" if self.shards != 1 else ""
                raise ValueError(f"shard={self.shard} is no share{whole}; write NUMBER/SHARDS, such as 3/8")
        if self.workers > _MOST_WORKERS:
            raise ValueError(f"workers={self.workers} is too many; use one for each processor, at most {_MOST_WORKERS}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", self.device):
            raise ValueError(f"device={self.device} is none of auto, cpu, cuda, cuda:N, mps")

    @property
    def share(self) -> tuple[int, int]:
        """Which share of the chunks is computed: (number from 1, of how many); (1, 1) is all of them."""
        return (1, 1) if self.shard is None else self._numbers(self.shard)

    @property
    def task(self) -> str:
        """The name of the task in the run folder, such as 3-of-8; a plain run is 1-of-1."""
        return "{}-of-{}".format(*self.share)

    def mine(self, chunk: int) -> bool:
        """Return whether a chunk, numbered from 0, is in this share."""
        number, count = self.share
        return chunk % count == number - 1

    @staticmethod
    def _numbers(shard: str) -> tuple[int, int]:
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", shard)
        return (int(match[1]), int(match[2])) if match else (0, 0)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Which attacked images are kept; ``limit`` (``auto`` only) is a size such as 1GiB or 500MB."""

    keep: Literal["auto", "all", "none"] = "auto"
    limit: str = "1GiB"

    def __post_init__(self) -> None:
        _ = self.limit_bytes

    @property
    def limit_bytes(self) -> int:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B|B|)\s*", self.limit)
        if match is None:
            raise ValueError(f"limit={self.limit} is no size; write it like 1GiB or 500MB")
        return int(float(match[1]) * _UNITS[match[2]])


@dataclass(frozen=True, kw_only=True)
class Checks:
    """How closely a run is looked at for what could make its number meaningless; changes no sample."""

    level: Literal["off", "standard", "strict"] = "standard"


@dataclass(frozen=True, kw_only=True)
class Stop:
    """When a run may end before all its images are done; each is about robust accuracy, a fraction.

    ``width``: once its 95 % interval, which holds whenever one stops, is no wider; ``below`` and ``above``: once that
    interval lies below or above a value. Several: once one of them holds.
    """

    width: Annotated[float, Gt(0), Lt(1)] | None = None
    below: Annotated[float, Gt(0), Le(1)] | None = None
    above: Annotated[float, Ge(0), Lt(1)] | None = None

    @property
    def asked(self) -> dict[str, float]:
        """The rules that were given, by name."""
        given = {"width": self.width, "below": self.below, "above": self.above}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Where run folders go; ``fresh`` sets the run of the same key aside and starts anew."""

    dir: str = "runs"
    fresh: bool = False

    def __post_init__(self) -> None:
        if not self.dir.strip():
            raise ValueError("dir= is empty; name a folder")
