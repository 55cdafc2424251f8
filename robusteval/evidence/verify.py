"""``robusteval verify RUN``: whether the files are the ones that were written, and whether they say what is true.

First every checksum and everything that derives from the shards; then, with model and data, the clean predictions and
the kept adversarials: still in the box, still inside the threat model, still mispredicted.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from robusteval.errors import RobustevalError, UserError
from robusteval.evidence import atomic, derive, forensics, images, shards, stopping, worst
from robusteval.evidence.folder import RunFolder
from robusteval.evidence.repredict import repredict

_EXCLUDED = ("cost", "provenance", "sinks")


def main(argv: Sequence[str]) -> int:
    """Print what was checked; return 0 only if all holds. ``--files`` leaves model and data out."""
    parser = argparse.ArgumentParser(
        prog="robusteval verify", description="Check a run's files and re-predict its adversarials."
    )
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--files", action="store_true", help="checksums and derived files only: needs neither model nor data"
    )
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(argv)
    run = RunFolder.open(given.run)
    faults = list(file_faults(run))
    for fault in faults:
        print(f"FAIL {fault}")
    if faults:
        raise RobustevalError(f"{run.path}: {len(faults)} faults; nothing was predicted again")
    print(
        f"files: every checksum holds, and samples.parquet and results.json follow from {_source(run)} ({_count(run)} "
        "files)"
    )
    if given.files:
        return 0
    if worst.is_merge(run):
        return _parts(run, given.device)
    _predict(run, given.device)
    return 0


def _predict(run: RunFolder, device: str) -> None:
    again = repredict(run, device)
    for line in again.lines():
        print(line)
    if again.faults:
        for fault in again.faults:
            print(f"FAIL {fault}")
        raise RobustevalError(f"{run.path}: {len(again.faults)} verdicts do not hold")


def _parts(run: RunFolder, device: str) -> int:
    """Verify the runs that a merge was made of, where they are still there; what is not there is said."""
    for part in worst.parts_of(run):
        if not (part.where / "run.json").is_file():
            print(f"{part.name}: no run at {part.where} any more, so its adversarials were not predicted again")
            continue
        whole = RunFolder.open(part.where)
        print(f"{part.name}: {whole.path}")
        faults = list(file_faults(whole))
        if atomic.sha256(whole.samples_file.read_bytes()) != part.digests["samples.parquet"]:
            faults.append(f"{whole.samples_file} is not what was merged")
        for fault in faults:
            print(f"FAIL {fault}")
        if faults:
            raise RobustevalError(f"{whole.path}: {len(faults)} faults; nothing was predicted again")
        _predict(whole, device)
    return 0


def _source(run: RunFolder) -> str:
    return "the parts" if worst.is_merge(run) else "the shards"


def _count(run: RunFolder) -> int:
    if worst.is_merge(run):
        return sum(len(part.digests) for part in worst.parts_of(run)) + 2
    named = len(list(images.every(run))) + len(list(forensics.every(run)))
    return sum(len(run.shards(stage).inspect()[0]) for stage in run.stages) + named + 2


def file_faults(run: RunFolder) -> Iterator[str]:
    """Yield a sentence for every file that is damaged, foreign, missing, or does not follow from the shards."""
    if not run.complete:
        raise UserError(f"{run.path} is not complete; run its command again to finish it, then verify")
    damaged = list(
        worst.faults(run) if worst.is_merge(run) else [*_shard_faults(run), *_image_faults(run), *forensics.faults(run)]
    )
    yield from damaged
    if damaged:
        return
    try:
        table = derive.table_of(run)
    except RobustevalError as error:
        yield str(error)
        return
    if not run.samples_file.is_file():
        yield f"{run.samples_file} is missing"
    elif run.samples_file.read_bytes() != shards.encode(table):
        yield f"{run.samples_file} does not follow from {_source(run)}: {_differing(run, table)}"
    written, derived = run.results(), json.loads(atomic.to_json(derive.results(run, table)))
    for key in sorted((set(written) | set(derived)) - set(_EXCLUDED)):
        if written.get(key) != derived.get(key):
            yield f"{run.results_file}: '{key}' does not follow from {_source(run)}"
    for key, value in derived["cost"].items():
        if written.get("cost", {}).get(key) != value:
            yield f"{run.results_file}: 'cost.{key}' does not follow from {_source(run)}"


def _shard_faults(run: RunFolder) -> Iterator[str]:
    many = stopping.counted(run)
    for stage in run.stages:
        found, faulty = run.shards(stage).inspect()
        for path in faulty:
            yield shards.fault(path) or f"{path} belongs to another run, stage or chunk, or is there twice"
        for chunk in range(many):
            if chunk not in found and not faulty:
                yield f"{run.shards(stage).folder}: the shard of chunk {chunk} is missing"


def _image_faults(run: RunFolder) -> Iterator[str]:
    named = set()
    for _, _, path in images.every(run):
        named.add(path)
        if (fault := shards.fault(path)) is not None:
            yield fault
    for path in sorted((run.path / "adversarials").rglob("*.safetensors")):
        if path not in named:
            yield shards.fault(path) or f"{path} is named by no shard"


def _differing(run: RunFolder, derived: Any) -> str:
    try:
        written = shards.read(run.samples_file)
    except (OSError, ValueError) as error:
        return f"it cannot be read ({error})"
    for name in derived.column_names:
        if name not in written.column_names:
            return f"column {name} is missing"
        rows = [
            i
            for i, (a, b) in enumerate(zip(written[name].to_pylist(), derived[name].to_pylist(), strict=False))
            if a != b and a == a
        ]
        if len(written) != len(derived) or rows:
            return f"column {name}, row {rows[0] if rows else len(written)}"
    return "its bytes differ"
