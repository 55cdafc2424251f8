"""Kept adversarials: safetensors beside the shards, one file for each (stage, chunk) that has any."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

from robusteval import randomness
from robusteval.errors import UserError
from robusteval.evidence import shards
from robusteval.evidence.folder import RunFolder
from robusteval.options import Evidence

SAMPLE = 1000
"""How many images a run of ``evidence=auto`` keeps (those of them that are broken) when all would exceed the limit."""


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Which positions of the plan keep their attacked image, and whether unbroken ones do too."""

    positions: frozenset[int] | None
    unbroken: bool

    def wants(self, position: int, broken: bool) -> bool:
        return (broken or self.unbroken) and (self.positions is None or position in self.positions)


def policy(evidence: Evidence, n: int, image_bytes: int, seed: int) -> Keep:
    """Return what ``evidence`` means for n images of so many bytes, decided before the run: it depends on no result."""
    if evidence.keep == "none":
        return Keep(positions=frozenset(), unbroken=False)
    if evidence.keep == "all":
        return Keep(positions=None, unbroken=True)
    if n * image_bytes <= evidence.limit_bytes:
        return Keep(positions=None, unbroken=False)
    affordable = min(SAMPLE, evidence.limit_bytes // image_bytes)
    return Keep(positions=frozenset(int(i) for i in randomness.subset(n, affordable, seed)), unbroken=False)


def write(run: RunFolder, stage: str, chunk: int, ids: np.ndarray, images: Tensor) -> str:
    """Write the attacked images [n, C, H, W] of the samples ``ids`` [n] and return the file's name; '' for none."""
    if not len(ids):
        return ""
    tensors = {"id": torch.from_numpy(ids.astype(np.int64)), "image": images.detach().cpu().contiguous()}
    # One key of metadata only: the order of several is not fixed, and the bytes must be.
    data = save(tensors, metadata={"fingerprint": run.run["fingerprint"]})
    return shards.checksummed(run.adversarials(stage), f"{chunk:05d}", data, ".safetensors").name


def read(path: Path) -> tuple[np.ndarray, Tensor]:
    """Return (ids, images) of one file. Raises UserError where it is damaged."""
    if (fault := shards.fault(path)) is not None:
        raise UserError(f"{fault}: these adversarials are not the ones that were judged")
    try:
        tensors = load(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file ({error})") from error
    return tensors["id"].numpy(), tensors["image"]


def named_by(shard: Path, run: RunFolder, stage: str) -> Path | None:
    """Return the file of adversarials that a stage's shard names, or None where it kept none."""
    name = shards.metadata_of(shard).get("adversarials", "")
    return run.adversarials(stage) / name if name else None


def every(run: RunFolder) -> Iterator[tuple[str, int, Path]]:
    """Yield (stage, chunk, file) of all kept adversarials that the intact shards name."""
    for stage in run.stages[1:]:
        for chunk, shard in run.shards(stage).inspect()[0].items():
            if (path := named_by(shard, run, stage)) is not None:
                yield stage, chunk, path
