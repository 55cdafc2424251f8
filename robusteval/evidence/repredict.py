"""Predicting again what a run claims, with the model as given."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from omegaconf import OmegaConf
from torch import Tensor

from robusteval import region
from robusteval.attacks import losses
from robusteval.config import Config, build
from robusteval.engine.memory import remembered
from robusteval.engine.passes import QUANTUM, Chance, Passes, frozen, physical
from robusteval.engine.session import load
from robusteval.errors import UserError
from robusteval.evidence import forensics, images
from robusteval.evidence.folder import RunFolder
from robusteval.metrics.transforms import UNTRANSFORMED

TIE = 1e-4
"""A margin below this may fall either way on another type of processor: such verdicts are listed, not failed."""


@dataclass(kw_only=True)
class Repredicted:
    """What was predicted again: how many clean images and adversarials, and what did not hold."""

    clean: int = 0
    broken: int = 0
    kept: int = 0
    ties: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        share = f"{self.kept / self.broken:.0%}" if self.broken else "none needed"
        yield f"clean predictions: {self.clean} made again"
        yield f"adversarials: {self.kept} of {self.broken} broken images could be predicted again ({share})"
        if self.ties:
            more = f" and {len(self.ties) - 10} more" if len(self.ties) > 10 else ""
            yield (
                f"ties (margin under {TIE:g}, or a randomised model; may fall either way another time): "
                f"{', '.join(self.ties[:10])}{more}"
            )


def repredict(run: RunFolder, device: str) -> Repredicted:
    """Predict all clean images and all kept adversarials again.

    Raises UserError where model or data are not there, or are not those of the run.
    """
    config = config_of(run)
    if config.key != run.run["key"]:
        raise UserError(
            f"{run.path / 'config.yaml'} is not the configuration of this run: its key is {config.key}, run.json "
            f"says {run.run['key']}"
        )
    if (sentence := config.dataset.missing()) is not None:
        raise UserError(f"{sentence}; robusteval verify --files needs neither data nor model")
    classifier, dataset = load(config)
    if (sentence := region.missing(config.threat.region)) is not None:
        raise UserError(f"{sentence}; robusteval verify --files needs neither data nor model")
    met_again = {"model": classifier.digest, "dataset": dataset.digest, "region": region.digest(config.threat.region)}
    for name, met in met_again.items():
        if run.run["digests"].get(name) != met:
            raise UserError(
                f"{run.path}: this is not the {name} that the run met (its digest differs), so its verdicts cannot "
                "be checked"
            )
    module = classifier.module.to(device)
    table = run.samples()
    found = Repredicted(broken=int(np.count_nonzero(_column(table, "clean_correct") & ~_column(table, "robust"))))
    draws = run.run["draws"]
    chance = Chance(seed=config.seed, unit="verify") if draws > 1 else None
    batch = min(4 * QUANTUM, physical(remembered(run) or 4 * QUANTUM))
    passes = Passes(module=module, batch=batch, draws=draws, chance=chance)
    before = None if classifier.untransformed is None else classifier.untransformed.module.to(device)
    plain = None if before is None else Passes(module=before, batch=batch)
    judge = _Judge(
        config=config, passes=passes, plain=plain, table=table, device=device, found=found, notes=forensics.notes(run)
    )
    size = run.run["plan"]["chunk"]
    attacked = _attacked(run)
    with frozen(module), contextlib.nullcontext() if before is None else frozen(before):
        for begin in range(0, len(table), size):  # which a rule may have ended before the images
            rows = list(range(begin, min(begin + size, len(table))))
            judge.chunk(rows, dataset.images(rows), attacked)
    return found


@dataclass(kw_only=True)
class _Judge:
    config: Config
    passes: Passes
    plain: Passes | None
    table: pa.Table
    device: str
    found: Repredicted
    notes: forensics.Notes

    def chunk(self, rows: Sequence[int], clean: Tensor, attacked: dict[tuple[str, int], Path]) -> None:
        part = self.table.slice(rows[0], len(rows))
        ids, labels = part["id"].to_numpy(), torch.from_numpy(part["label"].to_numpy().astype(np.int64))
        clean_correct, robust = _column(part, "clean_correct"), _column(part, "robust")
        logits = self._logits(clean)
        self._compare(logits, labels, ~clean_correct, [f"image {i}, clean" for i in ids])
        if self.plain is not None:
            self._compare_untransformed(self.plain.logits(clean.to(self.device)).cpu(), part)
        self.found.clean += len(rows)
        chosen = np.flatnonzero(clean_correct & ~robust)
        within = _column(part, "broken_at_eps").astype(np.float64)  # of a list of radii, the one that broke it
        points, places = self._points(part, clean, chosen, attacked)
        if not places:
            return
        self.found.kept += len(places)
        names = [f"image {ids[place]}, adversarial" for place in places]
        x, y = clean[places], labels[places]
        threat = self.config.threat
        in_box, distances = threat.admits(points, x).tolist(), threat.distance(points, x).tolist()
        for name, boxed, distance, eps in zip(names, in_box, distances, within[places].tolist(), strict=True):
            if not (boxed and distance <= (threat.radius if np.isnan(eps) else eps)):
                self.found.faults.append(
                    f"{name}: outside the threat model (distance {distance:.9g}, or outside [0, 1] or the region)"
                )
        self._compare(self._logits(points), y, np.ones(len(places), dtype=bool), names)
        self.found.faults.extend(forensics.differing(self.notes, ids[places].tolist(), x, points))

    def _compare_untransformed(self, logits: Tensor, part: pa.Table) -> None:
        """Compare what the model predicts without its transforms; ties by the two largest logits."""
        top = logits.nan_to_num(-torch.inf).topk(2, 1)
        now, then = top.indices[:, 0].numpy(), part[UNTRANSFORMED].to_numpy()
        near = (top.values[:, 0] - top.values[:, 1]).numpy() < TIE
        for row in np.flatnonzero((now != then) & logits.isfinite().all(1).numpy()):
            name = f"image {part['id'][row]}, without transforms"
            if near[row]:
                self.found.ties.append(name)
            else:
                self.found.faults.append(f"{name}: recorded as class {then[row]}, but the model says {now[row]}")

    def _points(
        self, part: pa.Table, clean: Tensor, chosen: np.ndarray, attacked: dict[tuple[str, int], Path]
    ) -> tuple[Tensor, list[int]]:
        if self.config.attack.parametric:
            parameter = part["attack_parameter"].to_numpy(zero_copy_only=False).astype(np.float64)
            places = [int(place) for place in chosen if np.isfinite(parameter[place])]
            return self.config.attack.apply(clean[places], torch.from_numpy(parameter[places]).float()), places
        ids, breaker = part["id"].to_numpy(), part["broken_by"].to_pylist()
        files = {place: attacked.get((breaker[place], int(ids[place]))) for place in chosen.tolist()}
        places, points = [], []
        for place, path in sorted((item for item in files.items() if item[1]), key=lambda item: (item[1], item[0])):
            kept_ids, kept = _read(path)
            points.append(kept[int(np.flatnonzero(kept_ids == ids[place])[0])])
            places.append(place)
        return (torch.stack(points) if points else clean[:0]), places

    def _logits(self, points: Tensor) -> Tensor:
        return self.passes.logits(points.to(self.device)).cpu()

    def _compare(self, logits: Tensor, labels: Tensor, broken: np.ndarray, names: Sequence[str]) -> None:
        again = self.config.threat.broken(logits, labels).numpy()
        margins = losses.margin(logits, labels).abs().tolist()
        for name, now, then, margin in zip(names, again.tolist(), broken.tolist(), margins, strict=True):
            if now != then:
                if margin < TIE or self.passes.draws > 1:
                    self.found.ties.append(name)
                else:
                    self.found.faults.append(f"{name}: recorded as {_word(then)}, but the model says {_word(now)}")


# The adversarials of a chunk and stage share a file, and come in the order of the files.
_read = functools.lru_cache(maxsize=1)(images.read)


def _word(broken: bool) -> str:
    return "mispredicted" if broken else "predicted right"


def _attacked(run: RunFolder) -> dict[tuple[str, int], Path]:
    """Return which file holds the attacked image of each (stage, sample)."""
    return {
        (stage, int(sample)): path for stage, _, path in images.every(run) for sample in images.read(path)[0].tolist()
    }


def config_of(run: RunFolder) -> Config:
    """Return the configuration that a run was begun with. Raises UserError where config.yaml does not hold it."""
    path = run.path / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path} is missing, so model and data are not known; robusteval verify --files needs neither")
    written = OmegaConf.to_container(OmegaConf.load(path))
    if not isinstance(written, dict):
        raise UserError(f"{path} is not a configuration of robusteval")
    return build({str(key): value for key, value in written.items()})


def _column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy(zero_copy_only=False)
