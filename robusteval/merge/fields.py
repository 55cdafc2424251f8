"""Whether two runs have the same plan, and if not, in which field they differ."""

from collections.abc import Iterator, Mapping
from typing import Any

# What decides the bytes of a shard, or what of them is kept. All else in run.json says where and when.
_PLAN = (
    "schema",
    "digests",
    "plan",
    "model",
    "dataset",
    "attack",
    "threat",
    "seed",
    "stop",
    "draws",
    "bitwise",
    "evidence",
    "evidence_limit",
    "oracle.form",
    "oracle.precisions",
    "key",
    "fingerprint",
)
# What must agree where the worst of several attacks is to be taken.
_SUBJECT = (
    "schema",
    "digests.model",
    "digests.dataset",
    "digests.preprocessing",
    "dataset",
    "plan.n",
    "draws",
    "threat.norm",
    "threat.goal",
    "threat.eps",
)


def other_plan(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return in words the first field of the plan in which two run.json differ; None where the plan is the same."""
    return _first(one, other, _PLAN)


def other_subject(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return in words in what two runs differ that keeps their attacks from being compared; None where nothing does."""
    return _first(one, other, _SUBJECT)


def _first(one: Mapping[str, Any], other: Mapping[str, Any], fields: tuple[str, ...]) -> str | None:
    mine, theirs = dict(_leaves(one)), dict(_leaves(other))
    for field in fields:
        under = sorted(name for name in {**mine, **theirs} if name == field or name.startswith(f"{field}."))
        for name in under:
            if mine.get(name) != theirs.get(name):
                return f"{name} is {_short(theirs.get(name))} there and {_short(mine.get(name))} here"
    return None


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _short(value: object) -> str:
    said = str(value)
    return said if len(said) <= 60 else f"{said[:57]}..."
