"""Transfer: the adversarials that runs on other networks have kept, tried on this one."""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import safetensors
import torch
from torch import Tensor

from robusteval.attacks.base import Attack, Job, Query, State, Steps
from robusteval.attacks.geometry import project

_DIGITS = 12  # of a file's sha256, which its name ends with


@dataclass(frozen=True, kw_only=True)
class Transfer(Attack):
    """Tries the saved adversarials of finished ``runs`` (their folders), run by run, a stage each.

    Image by image, by their ids: the runs must be on the same images. An image whose adversarial a run has not kept
    stands there. Points outside the ball are brought into it. One forward pass for each image and run, no gradients.
    """

    runs: tuple[str, ...] = ()

    method: ClassVar[str] = "transfer"
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2", "l1", "unbounded"})

    def __post_init__(self) -> None:
        if len(set(self.runs)) < len(self.runs):
            raise ValueError(f"runs={list(self.runs)} names a run twice; name each once")

    def stages(self, norm: str) -> tuple[tuple[str, Attack], ...]:
        return tuple((f"transfer-{number}", Saved(run=run)) for number, run in enumerate(self.runs, 1))

    def refusal(self, norm: str) -> str | None:
        if not self.runs:
            return "attack=transfer needs attack.runs, the folders of the runs whose adversarials are to be tried"
        return next(filter(None, map(_trouble, self.runs)), None)

    def foreign(self, digests: Mapping[str, str]) -> str | None:
        for run in self.runs:
            theirs = facts_of(run)["digests"]
            for name, what in (("dataset", "images"), ("preprocessing", "preprocessing")):
                if theirs.get(name) != digests[name]:
                    return (
                        f"attack.runs: {run} is a run on other {what} than this one, so its adversarials belong to "
                        "other pictures; name runs on the same dataset, subset and seed"
                    )
        return None

    def files(self) -> str | None:
        return hashlib.sha256("\n".join(name for run in self.runs for name in _names(run)).encode()).hexdigest()

    def origins(self) -> list[dict[str, Any]]:
        return [
            {
                "stage": f"transfer-{number}",
                "run": Path(run).name,
                "model": facts["model"]["name"],
                "model_digest": facts["digests"]["model"],
                "attack": facts["attack"]["name"],
                "gradients": bool(facts["plan"].get("gradients")),
            }
            for number, run in enumerate(self.runs, 1)
            for facts in [facts_of(run)]
        ]


@dataclass(frozen=True, kw_only=True)
class Saved(Attack):
    """The stage of one run: its kept adversarial of each image, brought into the ball."""

    run: str

    method: ClassVar[str] = "transfer"
    norms: ClassVar[frozenset[str]] = Transfer.norms

    def start(self, job: Job) -> State:
        kept = _index(self.run, tuple(_names(self.run)))
        x = job.x.clone()
        for row, sample in enumerate(job.sample.tolist()):
            if (place := kept.get(sample)) is not None:
                x[row] = _image(*place).to(x)
        if job.region is not None:  # first, or what lies outside would use up the ball
            x = torch.where(job.region, x, job.x)
        return State(x=project(x, job.x, job.lo, job.hi, job.eps, job.norm))

    def iterate(self, state: State) -> Steps:
        yield Query(points=state.x)
        return torch.ones(len(state.x), dtype=torch.bool, device=state.x.device)


def facts_of(run: str) -> dict[str, Any]:
    """Return what run.json of a run's folder says."""
    return json.loads((Path(run).expanduser() / "run.json").read_text())


def _trouble(run: str) -> str | None:
    """Return in a sentence why a run cannot be used, or None."""
    folder = Path(run).expanduser()
    if not (folder / "run.json").is_file():
        return f"attack.runs: {run} is no run, since it has no run.json; name the folder of a finished run"
    if not (folder / "results.json").is_file():
        return f"attack.runs: {run} is not complete; run its command again to finish it"
    facts = facts_of(run)
    if not {"digests", "model", "attack", "plan"} <= facts.keys():
        return f"attack.runs: {folder / 'run.json'} holds no plan of a run; it is damaged"
    if not _names(run):
        kept = facts.get("evidence")
        return (
            f"attack.runs: {run} keeps no adversarials (evidence={kept}, and those of one-parameter attacks are not "
            "images); name a run that does"
        )
    for path in _files(run):
        if hashlib.sha256(path.read_bytes()).hexdigest()[:_DIGITS] != path.stem.rpartition("-")[2]:
            return f"attack.runs: {path} does not match the checksum in its name; see robusteval verify {run}"
    return None


def _files(run: str) -> Iterator[Path]:
    yield from sorted(Path(run).expanduser().glob("adversarials/*/*.safetensors"))


def _names(run: str) -> list[str]:
    return [f"{path.parent.name}/{path.name}" for path in _files(run)]


@functools.cache
def _index(run: str, names: tuple[str, ...]) -> dict[int, tuple[Path, int]]:
    """Return in which file and row the adversarial of each id lies: of several stages that of the last.

    The ``names`` of its files say whether a run is still the one that was read before.
    """
    found: dict[int, tuple[Path, int]] = {}
    for path in (Path(run).expanduser() / "adversarials" / name for name in names):
        with safetensors.safe_open(path, framework="pt") as file:
            found |= {int(sample): (path, row) for row, sample in enumerate(file.get_tensor("id").tolist())}
    return found


def _image(path: Path, row: int) -> Tensor:
    """Return one image [C, H, W] of a file, without reading the others."""
    with safetensors.safe_open(path, framework="pt") as file:
        return file.get_slice("image")[row]
