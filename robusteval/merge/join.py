"""Shards of one plan that were computed in different folders, joined into one."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robusteval.errors import UserError
from robusteval.evidence import atomic, forensics, images, shards
from robusteval.evidence.folder import RunFolder
from robusteval.evidence.gaps import intact
from robusteval.merge.fields import other_plan


@dataclass(frozen=True, kw_only=True)
class Unit:
    """The shard of a stage on a chunk, and the files that it names: adversarials, and notes on them."""

    run: RunFolder
    shard: Path
    named: tuple[Path, ...]


def same_plan(runs: Sequence[RunFolder]) -> None:
    """Raise UserError naming the field in which one of the runs was planned otherwise than the first."""
    for run in runs[1:]:
        if (what := other_plan(runs[0].run, run.run)) is not None:
            raise UserError(f"{run.path} is no share of the run {runs[0].path}: {what}; only shards of one plan join")


def join(runs: Sequence[RunFolder], target: RunFolder) -> None:
    """Copy what the target lacks of the runs' evidence into it; all have the same plan. For the holder of its lock.

    What is damaged is left out with a note, and left where it is unless that is the target. Raises UserError, before
    anything is copied, where two runs hold different bytes for the same unit.
    """
    units = _units(runs, target)
    first = runs[0]
    for name in ("config.yaml", "run.json"):
        if (first.path / name).is_file():
            atomic.create(target.path / name, (first.path / name).read_bytes())
    for unit in units:
        for path in [*unit.named, unit.shard]:  # with the shard the unit is there
            _copy(path, target.path / path.relative_to(unit.run.path))
    for run in runs:
        for path in sorted(run.seconds.glob("*.txt")):
            _copy(path, target.seconds / path.name)


def _units(runs: Sequence[RunFolder], target: RunFolder) -> list[Unit]:
    found: dict[tuple[str, int], Unit] = {}
    for run in runs:
        for stage in run.stages:
            there, faulty = intact(run, stage)
            for path in faulty:
                print(f"robusteval: {path} is damaged or foreign, so it is left out", file=sys.stderr)
                if run.path.resolve() == target.path.resolve():
                    shards.set_aside(path)
            for chunk, path in there.items():
                named = filter(None, [images.named_by(path, run, stage), forensics.named_by(path, run, stage)])
                unit = Unit(run=run, shard=path, named=tuple(named))
                before = found.setdefault((stage, chunk), unit)
                if before.shard.read_bytes() != path.read_bytes():
                    raise UserError(
                        f"{before.run.path} and {run.path} hold different bytes for chunk {chunk} of stage {stage} "
                        f"({before.shard.name} and {path.name}), so they come from different processors or versions; "
                        "delete one of the two"
                    )
    return list(found.values())


def _copy(source: Path, target: Path) -> None:
    if not target.exists():
        atomic.write(target, source.read_bytes())
