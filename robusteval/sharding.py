"""Shards of one evaluation on the command line: ``runtime.shards=8`` becomes a sweep over ``runtime.shard``.

Before Hydra, since its launchers act in sweeps only. Imports no torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from robusteval.compose import parse
from robusteval.errors import UserError

MOST = 10_000
"""More tasks than this are a slip of the keyboard; Slurm takes 1000 in an array unless told otherwise."""


def spread(overrides: Sequence[str]) -> list[str] | None:
    """Return the overrides of the sweep that ``runtime.shards=N`` among them asks for; None where none does.

    Raises UserError where N is a list, or more than 10 000.
    """
    named = {override.key_or_group: override for override in parse(overrides)}
    several = named.get("runtime.shards")
    if several is None or "runtime.shard" in named:
        return None
    if several.is_sweep_override():
        raise UserError("runtime.shards takes one number: how many tasks share an evaluation")
    count = several.value()
    if not isinstance(count, int) or isinstance(count, bool) or count <= 1:
        return None  # 1 is a plain run, and what is no number is refused with the other options
    return [*overrides, over(count)]


def of_files(composed: Mapping[str, Any]) -> str | None:
    """Return the override that spreads an evaluation whose configuration files ask for it; None where none does."""
    runtime = composed.get("runtime")
    if not isinstance(runtime, Mapping) or runtime.get("shard") is not None:
        return None
    count = runtime.get("shards")
    return over(count) if isinstance(count, int) and not isinstance(count, bool) and count > 1 else None


def over(count: int) -> str:
    """Return the override that sweeps over ``count`` shards. Raises UserError above 10 000."""
    if count > MOST:
        raise UserError(f"runtime.shards={count} is too many; use at most {MOST}")
    return f"runtime.shard={','.join(f'{number}/{count}' for number in range(1, count + 1))}"
