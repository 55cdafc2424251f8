"""The planned units of work, a stage on a chunk each: computed once, written whole, found again after a kill."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robusteval.datasets.base import Dataset
from robusteval.engine import forensics as observe
from robusteval.engine.board import Board
from robusteval.engine.jobs import Chunk
from robusteval.engine.passes import Passes, physical
from robusteval.engine.search import Searcher
from robusteval.engine.stages import Stage
from robusteval.engine.transfer import to_device
from robusteval.evidence import forensics, shards
from robusteval.evidence import images as adversarials
from robusteval.evidence.folder import CLEAN, RunFolder
from robusteval.evidence.gaps import intact
from robusteval.evidence.images import Keep
from robusteval.evidence.tables import clean_table, stage_table
from robusteval.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class Work:
    """Everything a unit needs: the run on disk, the data, the engine, and which images to keep.

    Of a transformed model ``plain`` is the one before, whose clean predictions are kept too, and ``temperature`` what
    its logits were divided by at last.
    """

    run: RunFolder
    dataset: Dataset
    threat: ThreatModel
    stages: Sequence[Stage]
    searcher: Searcher
    keep: Keep
    device: torch.device
    plain: Passes | None = None
    temperature: float | None = None

    def with_slots(self, slots: int) -> "Work":
        """Return the same work with another number of slots, which changes no result."""
        batch, searcher = physical(slots), self.searcher
        oracles = {name: dataclasses.replace(passes, batch=batch) for name, passes in searcher.oracles.items()}
        verifier = dataclasses.replace(searcher.verifier, batch=batch)
        searcher = dataclasses.replace(searcher, slots=slots, oracles=oracles, verifier=verifier)
        plain = None if self.plain is None else dataclasses.replace(self.plain, batch=batch)
        return dataclasses.replace(self, searcher=searcher, plain=plain)

    def pending(self, mine: Callable[[int], bool]) -> Iterator[tuple[int, dict[str, Path]]]:
        """Yield each chunk that is ``mine`` and lacks a unit, with the shards it has (stage -> path)."""
        there = {stage: self.finished(stage) for stage in self.run.stages}
        for number in filter(mine, range(self.run.run["plan"]["chunks"])):
            done = {stage: found[number] for stage, found in there.items() if number in found}
            if len(done) < len(there):
                yield number, done
            else:
                self.searcher.tick(len(self.positions(number)) * len(self.run.stages))

    def finished(self, stage: str) -> dict[int, Path]:
        """Return the intact shards of a stage by chunk, after setting aside what is damaged."""
        found, faulty = intact(self.run, stage)
        for path in faulty:
            shards.set_aside(path)
        return found

    def compute(self, number: int, done: Mapping[str, Path]) -> None:
        """Compute the units of a chunk that ``done`` (stage -> shard) lacks, in the order of the stages."""
        positions = self.positions(number)
        ids, labels = self.dataset.ids[positions], self.dataset.labels[positions]
        images = to_device(self.dataset.images(positions), self.device)
        # Computed again for a resumed chunk: the bits are the same, and storing all logits would cost more.
        self.searcher.begin(CLEAN, number)
        logits = self.searcher.verifier.logits(images)
        chunk = Chunk(images=images, labels=to_device(labels, self.device), logits=logits, ids=ids)
        broken = self.threat.broken(logits, chunk.labels)
        if CLEAN not in done:
            plain = None if self.plain is None else self.plain.logits(images)
            table = clean_table(ids, labels, logits, broken, plain=plain, temperature=self.temperature)
            self.run.shards(CLEAN).write(number, table, on_grid=str(on_grid(images)))
        self.searcher.tick(len(ids))
        standing = set((~broken).nonzero()[:, 0].tolist())
        for stage in self.stages:
            everyone = self.searcher.stop == "never" or stage.attack.columns() is not None
            entered = list(range(len(ids))) if everyone else sorted(standing)
            if stage.name in done:
                part = shards.read(done[stage.name])
                fell = set(part.filter(part["broken"])["id"].to_pylist())
                standing -= {row for row in standing if int(ids[row]) in fell}
                self.searcher.tick(len(ids))
                continue
            self.searcher.tick(len(ids) - len(entered))
            self.searcher.begin(stage.name, number)
            board = self.searcher.run(stage, chunk, entered)
            fell = [row for row in entered if row in standing and bool(board.broken[row])]
            standing -= set(fell)
            self._write(number, stage, board, chunk, positions, entered, fell)

    def positions(self, number: int) -> np.ndarray:
        """Return the positions in the dataset of a chunk."""
        size = self.run.run["plan"]["chunk"]
        return np.arange(number * size, min((number + 1) * size, len(self.dataset)))

    def _write(
        self,
        number: int,
        stage: Stage,
        board: Board,
        chunk: Chunk,
        positions: np.ndarray,
        entered: list[int],
        fell: list[int],
    ) -> None:
        """Write the adversarials, then the shard that names them: only with the shard is the unit done.

        ``fell`` are those of the ``entered`` that the stage was the first to break.
        """
        name = ""
        if not stage.attack.parametric:
            rows = [row for row in entered if self.keep.wants(int(positions[row]), bool(board.broken[row]))]
            name = adversarials.write(self.run, stage.name, number, chunk.ids[rows], board.point[rows])
        labels = self.dataset.labels[positions]
        table = stage_table(board, chunk.images, chunk.ids, labels, entered, temperature=self.temperature)
        marks = {} if board.outside is None else {"outside": str(board.outside)}
        if noted := self._noted(number, stage, board, chunk, positions, fell, searched=len(entered)):
            marks["forensics"] = forensics.write(self.run, stage.name, number, noted)
        self.run.shards(stage.name).write(number, table, adversarials=name, rejected=str(board.rejected), **marks)

    def _noted(
        self,
        number: int,
        stage: Stage,
        board: Board,
        chunk: Chunk,
        positions: np.ndarray,
        fell: list[int],
        *,
        searched: int,
    ) -> forensics.Tensors:
        """Return the notes on the kept adversarials of a unit; nothing where the run was planned without any."""
        plan = self.run.run["plan"].get("forensics")  # not in runs of earlier versions
        if plan is None or plan["reason"] is not None:
            return {}
        rows = [row for row in fell if self.keep.wants(int(positions[row]), True)]
        chunks = self.run.run["plan"]["chunks"]
        self.searcher.begin(f"{stage.name} notes", number)
        return observe.noted(
            stage.attack,
            self.searcher.verifier,
            stage.threat,
            chunk.images[rows],
            board.point[rows],
            chunk.labels[rows],
            chunk.ids[rows],
            rounded=observe.quota("rounded", plan["rounded"], chunks, searched),
            salient=observe.quota("salient", plan["salient"], chunks, searched),
        )


def on_grid(images: Tensor) -> bool:
    """Return whether every value is k/255, as in an 8-bit picture: so 257 solarization thresholds are exhaustive."""
    grey = images * 255
    return bool(((grey - grey.round()).abs() < 1e-3).all())
