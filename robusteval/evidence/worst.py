"""The worst of several attacks, image by image: a run that derives from the finished runs of its parts.

It keeps a copy of each part's run.json, samples and results, with checksums in its own run.json, so that every number
derives from this folder alone. The shards and adversarials stay where they are, and run.json says where: ``verify``
looks there.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from robusteval.checks import transfer
from robusteval.checks.verdict import Check
from robusteval.errors import RobustevalError
from robusteval.evidence import atomic
from robusteval.evidence.folder import RunFolder

FILES = ("run.json", "results.json", "samples.parquet")
"""What is copied of every part."""

_SUMMED = ("forward_passes", "backward_passes")
_SERIOUS = ("skipped", "pass", "warn", "fail")


@dataclass(frozen=True)
class Part:
    """One attack of a merge: ``copy`` holds its files, ``stages`` what each of its stages is called in the merge."""

    name: str
    copy: RunFolder
    where: Path
    stages: Mapping[str, str]
    digests: Mapping[str, str]

    @cached_property
    def table(self) -> pa.Table:
        return self.copy.samples()

    def column(self, name: str) -> np.ndarray:
        return self.table[name].to_numpy(zero_copy_only=False)

    @property
    def broken(self) -> np.ndarray:
        """Which images [n] were right before the attack and not after it."""
        return self.column("clean_correct") & ~self.column("robust")


def is_merge(run: RunFolder) -> bool:
    """Return whether a run derives from other runs."""
    return "parts" in run.run


def parts_of(run: RunFolder) -> list[Part]:
    """Return the parts of a merge, in the order in which they were named."""
    return [
        Part(
            name=entry["name"],
            copy=RunFolder(run.path / "parts" / entry["name"]),
            where=Path(os.path.normpath(run.path / entry["where"])),
            stages=entry["stages"],
            digests=entry["files"],
        )
        for entry in run.run["parts"]
    ]


def faults(run: RunFolder) -> Iterator[str]:
    """Yield a sentence for every copy of a part that is not what was merged."""
    for part in parts_of(run):
        for name, digest in part.digests.items():
            path = part.copy.path / name
            if not path.is_file():
                yield f"{path} is missing"
            elif atomic.sha256(path.read_bytes()) != digest:
                yield f"{path} does not match its checksum in run.json"


def assemble(run: RunFolder) -> pa.Table:
    """Return the table of samples of a merge.

    An image is robust where it is so for all parts. ``broken_by`` is the part that broke it at the smallest radius, the
    first named of equals. The attacked image kept is the nearest adversarial where all parts keep that, the breaking
    part's where all keep their first success, and otherwise that of highest loss among the broken, or among all where
    none is. Passes are summed.
    """
    parts = parts_of(run)
    disagreement(parts)
    reached = np.stack([_reached(part) for part in parts])
    first = reached.argmin(0)
    fell: np.ndarray = np.isfinite(reached.min(0))
    row = np.arange(len(first))
    point = _point(run.run["plan"]["point"], parts, first, fell) * len(row) + row
    # Columns whose names or types differ between parts would be a bug of another version: Arrow says so.
    everything = pa.concat_tables([part.table for part in parts])
    out = everything.take(pa.array(point))
    breakers = [part.table["broken_by"].to_pylist() for part in parts]
    stage = [parts[p].stages[breakers[p][i]] if fell[i] else None for i, p in enumerate(first.tolist())]
    breaker = everything["broken_at_eps"].take(pa.array(first * len(row) + row))
    replaced: dict[str, pa.Array | pa.ChunkedArray] = {
        **{name: parts[0].table[name] for name in out.column_names if name in ("id", "label") or name[:6] == "clean_"},
        "robust": pa.array(parts[0].column("clean_correct") & ~fell),
        "broken_by": pa.array(stage, type=pa.string()),
        "broken_at_eps": breaker,
        **{name: pa.array(np.sum([part.column(name) for part in parts], axis=0)) for name in _SUMMED},
        "nonfinite": pa.array(np.any([part.column("nonfinite") for part in parts], axis=0)),
        "adversarial_distance": _nullable(np.fmin.reduce([_floats(part, "adversarial_distance") for part in parts])),
    }
    columns = {name: replaced.get(name, out[name]) for name in out.column_names}
    return pa.table({name: _whole(column) for name, column in columns.items()})


def checks(run: RunFolder) -> list[Check]:
    """Return each check of the parts once: the most serious verdict, and who says what where they differ."""
    found: dict[str, list[tuple[str, Check]]] = {}
    for part in parts_of(run):
        for check in part.copy.results()["checks"]:
            found.setdefault(check["id"], []).append((part.name, check))
    merged: list[Check] = []
    for said in found.values():
        worst = max((check for _, check in said), key=lambda check: _SERIOUS.index(check["verdict"]))
        if len({check["summary"] for _, check in said}) > 1:
            worst = {**worst, "summary": "; ".join(f"{name}: {check['summary']}" for name, check in said)}
            advice = dict.fromkeys(check["advice"] for _, check in said if check.get("advice"))
            worst["advice"] = "; ".join(advice)
        merged.append(worst)
    parts = parts_of(run)
    gradients = [bool(part.copy.run["plan"].get("gradients")) for part in parts]
    broken = np.stack([part.broken for part in parts])
    return merged + transfer.merged([part.name for part in parts], gradients, broken)


def shares(run: RunFolder) -> list[dict[str, Any]]:
    """Return what each part did on its own: its accuracy, its cost, and how many images no other part broke."""
    parts = parts_of(run)
    broken = np.stack([part.broken for part in parts])
    rows = []
    for part, mine in zip(parts, broken, strict=True):
        results = part.copy.results()
        rows.append(
            {
                "name": part.name,
                "attack": results["attack"],
                "fingerprint": results["fingerprint"],
                "accuracy": results["robust"]["accuracy"],
                "broken": int(mine.sum()),
                "alone": int((mine & (broken.sum(0) == 1)).sum()),
                "cost": results["cost"],
            }
        )
    return rows


def disagreement(parts: Sequence[Part]) -> None:
    """Raise RobustevalError where parts are not about the same images in the same order, right and wrong alike."""
    for part in parts[1:]:
        for name in ("id", "label", "clean_correct"):
            mine, theirs = parts[0].column(name), part.column(name)
            if len(mine) != len(theirs) or (mine != theirs).any():
                raise RobustevalError(
                    f"{part.where} and {parts[0].where} differ in the column {name} of samples.parquet, so they are "
                    "not about the same images, or their clean predictions differ between two machines"
                )


def _reached(part: Part) -> np.ndarray:
    """Return at which radius each image [n] broke: 0 where there is no radius, infinite where it did not."""
    return np.where(part.broken, np.nan_to_num(_floats(part, "broken_at_eps"), nan=0.0), np.inf)


def _point(kind: str, parts: Sequence[Part], first: np.ndarray, fell: np.ndarray) -> np.ndarray:
    """Return whose attacked image is kept of each image [n]."""
    chosen = np.zeros(len(first), dtype=np.int64)
    kept_broken, kept_loss = parts[0].broken, _loss(parts[0])
    nearest = _floats(parts[0], "adversarial_distance")
    for number, part in enumerate(parts[1:], 1):
        broken, loss, distance = part.broken, _loss(part), _floats(part, "adversarial_distance")
        better = np.where(broken == kept_broken, loss > kept_loss, broken)
        if kind == "nearest":
            closer = (distance < nearest) | (np.isfinite(distance) & np.isnan(nearest))
            better = np.where(np.isfinite(distance) | np.isfinite(nearest), closer, better)
        chosen[better] = number
        kept_broken, kept_loss = np.where(better, broken, kept_broken), np.where(better, loss, kept_loss)
        nearest = np.fmin(nearest, distance)
    return np.where(fell, first, chosen) if kind == "first_success" else chosen


def _loss(part: Part) -> np.ndarray:
    loss = part.column("attacked_logsumexp") - part.column("attacked_label_logit")
    return np.where(np.isnan(loss), np.inf, loss)


def _floats(part: Part, name: str) -> np.ndarray:
    return part.column(name).astype(np.float64)


def _nullable(values: np.ndarray) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))


def _whole(column: "pa.Array | pa.ChunkedArray") -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
