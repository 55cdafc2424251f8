"""The worst case over several attacks on one model and the same images: a run of its own, made of finished runs."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from robusteval.engine.finish import conclude, derived
from robusteval.errors import UserError
from robusteval.evidence import atomic, derive, lock, times, worst
from robusteval.evidence.folder import CLEAN, SCHEMA, RunFolder
from robusteval.evidence.gaps import gaps, in_words
from robusteval.merge.fields import other_plan, other_subject
from robusteval.provenance import provenance
from robusteval.report.console import show


def merge(runs: Sequence[RunFolder], into: Path | None) -> RunFolder:
    """Return the run that holds the worst of the runs for every image, made where it is not there yet.

    Raises UserError where a run is not complete, is a merge itself, or differs from the first in model, images or
    threat, naming the field.
    """
    for run in runs:
        _fits(run, runs[0])
    names = _names(runs)
    facts = _facts(runs, names)
    target = RunFolder(_place(runs, names, facts["key"]) if into is None else into)
    if target.run_file.is_file():
        if target.run["key"] != facts["key"]:
            raise UserError(f"{target.path} holds another run; name a new folder by --into")
        if derived(target):
            show(target.results(), target.path)
            return target
    elif target.path.is_dir() and any(target.path.iterdir()):
        raise UserError(f"{target.path} is not empty and no run; name a new folder by --into")
    with lock.hold(target.locks, lock.FINAL):
        _write(target, runs, names, facts)
        whole = RunFolder(target.path)
        conclude(whole, derive.write_samples(whole), [])
        show(whole.results(), whole.path)
    return whole


def _fits(run: RunFolder, first: RunFolder) -> None:
    if worst.is_merge(run):
        raise UserError(f"{run.path} is a merge itself; name the runs that it was made of, and the new ones")
    if not run.complete:
        missing = gaps(run)
        lacks = in_words(missing, run) if missing else "its results are not derived yet"
        plan = other_plan(first.run, run.run)
        differs = "" if plan is None else f", and it is no share of {first.path}, since {plan}"
        raise UserError(f"{run.path} is not complete ({lacks}){differs}; only finished attacks merge")
    if "stopping" in run.run["plan"]:
        raise UserError(f"{run.path} ended by a stopping rule, so its images are not all; only whole runs merge")
    if (what := other_subject(first.run, run.run)) is not None:
        raise UserError(f"{run.path} cannot be merged with {first.path}: {what}; only attacks on the same merge")
    if atomic.sha256(run.samples_file.read_bytes()) != run.results()["evidence"]["samples_sha256"]:
        raise UserError(f"{run.samples_file} is not what results.json was made of; see robusteval verify {run.path}")


def _names(runs: Sequence[RunFolder]) -> list[str]:
    """Return a name for each run: its attack's, with a number from the second of the same name on."""
    names: list[str] = []
    for run in runs:
        name = re.sub(r"[^A-Za-z0-9_.]+", "_", run.run["attack"]["name"])
        numbered = (name if number == 1 else f"{name}-{number}" for number in range(1, len(runs) + 1))
        names.append(next(candidate for candidate in numbered if candidate not in names))
    return names


def _stages(runs: Sequence[RunFolder], names: Sequence[str]) -> list[dict[str, str]]:
    """Return what each run's stages are called in the merge: as before where that is unique, else by the run's name."""
    count = Counter(stage for run in runs for stage in run.stages[1:])
    return [{stage: _renamed(stage, run, name) if count[stage] > 1 else stage for stage in run.stages[1:]}
            for run, name in zip(runs, names, strict=True)]  # fmt: skip


def _renamed(stage: str, run: RunFolder, name: str) -> str:
    attack = run.run["attack"]["name"]
    return f"{name}{stage.removeprefix(attack)}" if stage.partition("@")[0] == attack else f"{name}.{stage}"


def _facts(runs: Sequence[RunFolder], names: Sequence[str]) -> dict[str, Any]:
    """Return the run.json of a merge."""
    first, stages = runs[0].run, _stages(runs, names)
    fingerprint = hashlib.sha256("\n".join(["merge", *(run.run["fingerprint"] for run in runs)]).encode()).hexdigest()
    # Ascending radii, as within a run: what breaks at the smaller one is that attack's.
    order = [
        (run.radius(stage) or 0.0, number, called[stage])
        for number, (run, called) in enumerate(zip(runs, stages, strict=True))
        for stage in run.stages[1:]
    ]
    return {
        "schema": SCHEMA,
        "key": fingerprint[:10],
        "fingerprint": fingerprint[:16],
        "digests": {name: first["digests"][name] for name in ("model", "dataset", "preprocessing")},
        "plan": {
            "n": first["plan"]["n"],
            "chunk": first["plan"]["chunk"],
            "chunks": 0,  # it computes none
            "stages": [CLEAN, *(name for *_, name in sorted(order, key=lambda row: row[:2]))],
            "mode": _common([run.run["plan"]["mode"] for run in runs]),
            "point": _common([run.run["plan"]["point"] for run in runs]),
        },
        "model": first["model"],
        "dataset": first["dataset"],
        "attack": {"name": f"worst of {', '.join(names)}"},
        "threat": first["threat"],
        "seed": _common([run.run["seed"] for run in runs]),
        "stop": _common([run.run["stop"] for run in runs]),
        "evidence": "parts",
        "draws": first["draws"],
    }


def _common(values: Sequence[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else "mixed"


def _place(runs: Sequence[RunFolder], names: Sequence[str], key: str) -> Path:
    """Return the folder of a merge beside its first part."""
    attack = runs[0].path.name.rpartition("-")[0]  # MODEL-DATASET-ATTACK
    subject = attack.rpartition("-")[0] or attack
    return runs[0].path.parent / f"{subject}-worst_of_{'_'.join(names)[:80]}-{key}"


def _write(target: RunFolder, runs: Sequence[RunFolder], names: Sequence[str], facts: dict[str, Any]) -> None:
    entries = []
    for run, name, stages in zip(runs, names, _stages(runs, names), strict=True):
        copies = {file: (run.path / file).read_bytes() for file in worst.FILES}
        for file, data in copies.items():
            atomic.write(target.path / "parts" / name / file, data)
        entries.append(
            {
                "name": name,
                "where": os.path.relpath(run.path.resolve(), target.path.resolve()),
                "fingerprint": run.run["fingerprint"],
                "stages": stages,
                "files": {file: atomic.sha256(data) for file, data in copies.items()},
            }
        )
        times.put(target, name, run.results()["cost"]["seconds"])
    config = OmegaConf.to_container(OmegaConf.load(runs[0].path / "config.yaml"))
    if isinstance(config, dict):
        config["attack"] = {"method": "merge", "parts": list(names)}
    atomic.write(target.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)).encode())
    command = ["merge", *(str(run.path) for run in runs)]
    atomic.create(
        target.run_file,
        atomic.to_json({**facts, "parts": entries, "provenance": provenance(command, torch.device("cpu"))}),
    )
