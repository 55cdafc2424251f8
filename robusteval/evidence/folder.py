"""The run folder: where each thing lies, and whether the run is complete."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from robusteval.errors import UserError
from robusteval.evidence import atomic, shards
from robusteval.evidence.shards import Shards

CLEAN = "clean"

# Of run.json and results.json.
SCHEMA = 1


@dataclass(frozen=True)
class RunFolder:
    """One run on disk. ``run.json`` says what was planned; ``results.json`` is written last: there means complete."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Return the run at ``path``. Raises UserError where there is none."""
        folder = cls(path)
        if not folder.run_file.is_file():
            hint = " (it holds runs: name one of them)" if path.is_dir() and any(path.glob("*/run.json")) else ""
            raise UserError(f"{path} is not a run: it has no run.json{hint}")
        _ = folder.run
        return folder

    @property
    def run_file(self) -> Path:
        return self.path / "run.json"

    @property
    def results_file(self) -> Path:
        return self.path / "results.json"

    @property
    def samples_file(self) -> Path:
        return self.path / "samples.parquet"

    @property
    def locks(self) -> Path:
        return self.path / "locks"

    @property
    def errors(self) -> Path:
        return self.path / "errors"

    @property
    def seconds(self) -> Path:
        return self.path / "seconds"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def complete(self) -> bool:
        return self.results_file.is_file()

    @cached_property
    def run(self) -> dict[str, Any]:
        """run.json: plan, fingerprint, digests, provenance. Raises UserError where it holds no plan."""
        value = _load(self.run_file)
        plan = value.get("plan")
        if not isinstance(plan, dict) or not (
            isinstance(plan.get("stages"), list) and isinstance(plan.get("chunks"), int)
        ):
            raise UserError(f"{self.run_file} holds no plan of a run; it is damaged, or not a file of robusteval")
        return value

    def results(self) -> dict[str, Any]:
        """results.json. Raises UserError where the run is not complete."""
        if not self.complete:
            raise UserError(f"{self.path} is not complete: run its command again to finish it ({command_of(self.run)})")
        return _load(self.results_file)

    def samples(self) -> pa.Table:
        """The table of samples of a complete run."""
        if not self.samples_file.is_file():
            raise UserError(f"{self.samples_file} is missing; run the command again to make it from the shards")
        try:
            return shards.read(self.samples_file)
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{self.samples_file} is damaged ({error}); robusteval verify names what is") from error

    @property
    def stages(self) -> list[str]:
        """The stages of the plan in order, the clean pass first."""
        return list(self.run["plan"]["stages"])

    def radius(self, stage: str) -> float | None:
        """Return the radius of the ball that a stage searched; None where unbounded."""
        several = self.run["plan"].get("radii")
        return self.run["threat"]["eps"] if several is None else several[stage]

    def shards(self, stage: str) -> Shards:
        """Return the shards of a stage, in a folder numbered by the stage's place in the plan."""
        number = self.stages.index(stage)
        return Shards(folder=self.path / "shards" / f"{number:02d}-{stage}", fingerprint=self.run["fingerprint"])

    def adversarials(self, stage: str) -> Path:
        number = self.stages.index(stage)
        return self.path / "adversarials" / f"{number:02d}-{stage}"

    def forensics(self, stage: str) -> Path:
        number = self.stages.index(stage)
        return self.path / "forensics" / f"{number:02d}-{stage}"

    def sweep_leftovers(self) -> None:
        """Remove what a kill left half written; only for the holder of the lock."""
        for leftover in self.path.rglob(".*.part"):
            leftover.unlink(missing_ok=True)


def command_of(run: dict[str, Any]) -> str:
    """Return the command line that made a run."""
    return run.get("provenance", {}).get("command", "robusteval")


def _load(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); it is damaged, or not a file of robusteval") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a file of robusteval")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file of a run."""
    atomic.write(path, atomic.to_json(value))
