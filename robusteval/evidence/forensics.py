"""What every unit of work notes of its perturbations: statistics and sums, a small file for each (stage, chunk).

They are made where clean and attacked image are at hand, so that everything else follows from the files, merged from
shards or not. Noted are the adversarials whose image is kept (or could be made again by its number): images that were
right and that this stage was the first to break.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load, save
from torch import Tensor

from robusteval.errors import UserError
from robusteval.evidence import shards, stopping
from robusteval.evidence.folder import RunFolder
from robusteval.metrics import perturbation
from robusteval.metrics.accuracy import rate
from robusteval.metrics.perturbation import Shapes

Tensors = Mapping[str, np.ndarray]
SIDES = ("clean", "attacked")


def write(run: RunFolder, stage: str, chunk: int, tensors: Tensors) -> str:
    """Write what a unit notes and return the file's name; '' for nothing."""
    if not tensors:
        return ""
    arrays = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    data = save(arrays, metadata={"fingerprint": run.run["fingerprint"]})
    return shards.checksummed(run.forensics(stage), f"{chunk:05d}", data, ".safetensors").name


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of one file. Raises UserError where it is damaged."""
    if (fault := shards.fault(path)) is not None:
        raise UserError(fault)
    try:
        return load(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file ({error})") from error


def named_by(shard: Path, run: RunFolder, stage: str) -> Path | None:
    """Return the file that a stage's shard names, or None where it noted nothing."""
    name = shards.metadata_of(shard).get("forensics", "")
    return run.forensics(stage) / name if name else None


def every(run: RunFolder) -> Iterator[Path]:
    """Yield the files that the intact shards name."""
    for stage in run.stages[1:]:
        for shard in run.shards(stage).inspect()[0].values():
            if (path := named_by(shard, run, stage)) is not None:
                yield path


def counted(run: RunFolder) -> Iterator[Path]:
    """Yield the files of the chunks that count."""
    many = stopping.counted(run)
    for stage in run.stages[1:]:
        for shard in stopping.evidence(run, stage, many):
            if (path := named_by(shard, run, stage)) is not None:
                yield path


def shapes_of(tensors: Tensors) -> Shapes:
    """Return the statistics of perturbations among the arrays of a file."""
    return Shapes(**{name: tensors[name] for name in perturbation.NAMES})


def maps(run: RunFolder) -> dict[str, np.ndarray]:
    """Return the mean maps [H, W] by name: ``perturbation``, and ``clean`` and ``attacked`` saliency where noted."""
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for path in counted(run):
        noted = read(path)
        there = {"perturbation": ("total", len(noted["mass"]))}
        for side in SIDES if "saliency_id" in noted else ():
            there[side] = (f"saliency_{side}_total", len(noted["saliency_id"]))
        for name, (key, n) in there.items():
            sums[name] = sums.get(name, 0) + noted[key]
            counts[name] = counts.get(name, 0) + n
    return {name: total / counts[name] for name, total in sums.items()}


def section(run: RunFolder) -> dict[str, Any] | None:
    """Return the ``perturbation`` section of the results; None of a run that was not planned to have one.

    ``n`` adversarials were measured. Without any, ``reason`` says why. ``passes`` are those of rounding and saliency,
    which no sample's cost holds.
    """
    plan = run.run["plan"].get("forensics")
    if plan is None:
        return None
    if plan["reason"] is not None:
        return {"n": 0, "reason": plan["reason"]}
    files = [read(path) for path in counted(run)]
    if not files:
        return {"n": 0, "reason": "no adversarial was kept, since no image was broken"}
    shapes, seed = Shapes.joined([shapes_of(noted) for noted in files]), run.run["seed"]
    draws = run.run["draws"]
    survived = np.concatenate([noted["rounded_broken"] for noted in files]).astype(bool)
    found = {
        "n": len(shapes),
        **perturbation.describe(shapes, seed),
        "rounding": {"survived": rate(survived)},
        "passes": {"forward": draws * len(survived), "backward": 0},
    }
    if salient := [noted for noted in files if "saliency_id" in noted]:
        found["saliency"] = _saliency(salient, seed)
        found["passes"]["forward"] += 2 * found["saliency"]["n"]
        found["passes"]["backward"] += 2 * found["saliency"]["n"]
    return found


def _saliency(files: list[dict[str, np.ndarray]], seed: int) -> dict[str, Any]:
    """Return how the input gradient lies in the image, on the clean images and on what the attack made of them."""
    sides: dict[str, Any] = {"n": sum(len(noted["saliency_id"]) for noted in files)}
    for side in SIDES:
        mass, rings = (
            np.concatenate([noted[f"saliency_{side}_{name}"] for noted in files]) for name in ("mass", "rings")
        )
        height, width = files[0][f"saliency_{side}_total"].shape
        sides[side] = {"border": perturbation.border(mass, rings, height, width, seed)}
    return sides


Notes = Mapping[int, Mapping[str, np.ndarray]]
"""What was noted of the perturbation of each image, by its id."""


def notes(run: RunFolder) -> Notes:
    """Return the notes on every image, for a comparison with the images themselves."""
    found: dict[int, Mapping[str, np.ndarray]] = {}
    for path in counted(run):
        noted = read(path)
        for row, sample in enumerate(noted["id"].tolist()):
            found[sample] = {name: noted[name][row] for name in perturbation.NAMES if name != "total"}
    return found


def differing(noted: Notes, ids: Sequence[int], clean: Tensor, attacked: Tensor) -> Iterator[str]:
    """Yield a sentence for every image [n, C, H, W] whose perturbation is not what was noted of it."""
    for row, sample in enumerate(ids):
        if (due := noted.get(sample)) is None:
            continue
        delta = attacked[row : row + 1].double().numpy() - clean[row : row + 1].double().numpy()
        came = perturbation.as_arrays(Shapes.of(delta))
        for name, value in due.items():
            if not np.allclose(came[name][0], value, rtol=1e-6, atol=1e-9):
                yield f"image {sample}: the {name} noted of its perturbation is not that of the kept image"
                break


def faults(run: RunFolder) -> Iterator[str]:
    """Yield a sentence for every file that is damaged, or that no shard names."""
    named = set()
    for path in every(run):
        named.add(path)
        if (fault := shards.fault(path)) is not None:
            yield fault
    for path in sorted((run.path / "forensics").rglob("*.safetensors")):
        if path not in named:
            yield shards.fault(path) or f"{path} is named by no shard"
