"""Planted adversarials: is the attack strong enough to find an adversarial that is known to be there?

The active test of Zimmermann, Brendel, Tramer & Carlini 2022 (https://arxiv.org/abs/2206.13991): around each image the
network gets a new task of two classes, by a linear readout of its answers that tells points within the ball from one
planted at its border. The planted point is an adversarial by construction, so a sound attack must find one. Their
planted point is a random corner of the ball; ours climbs from there along the readout, so that an attack of a step or
two does not pass by luck.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robusteval import randomness
from robusteval.attacks import geometry
from robusteval.attacks.base import Query, rows
from robusteval.engine.jobs import Chunk
from robusteval.engine.passes import QUANTUM, Passes
from robusteval.engine.probe_attacks import searcher_of
from robusteval.engine.session import Session
from robusteval.engine.stages import Stage
from robusteval.engine.transfer import to_device
from robusteval.threat import ThreatModel

_INNER = 64  # points within the ball for each image, that the readout must keep in the first class
_REACH = 0.9  # how far out they lie, in radii
_CLIMB = 30  # steps
_HEIGHT = 0.9  # where the boundary lies between the highest inner point (0) and the planted one (1)
_SCALE = 10.0  # logits between those two
_FAR = 20.0  # how far below the classes lie that are there for losses that need more than two
_CLASSES = 4


def look(session: Session, images: Tensor, ids: np.ndarray, *, climb: bool) -> dict[str, Any]:
    """Return {images, found, by_stage} of the configured attack on adversarials planted around images [n, C, H, W].

    Of at most 16 images those count whose readout separates the planted point; ``by_stage`` says which stage found it.
    Without ``climb`` the planted points are random corners, and no gradient is asked for.
    """
    threat, seed = session.config.threat.balls()[-1], session.config.seed
    return run(session.passes, images, ids, threat, session.stages, seed=seed, climb=climb)


def run(
    passes: Passes,
    images: Tensor,
    ids: np.ndarray,
    threat: ThreatModel,
    stages: Sequence[Stage],
    *,
    seed: int,
    climb: bool,
) -> dict[str, Any]:
    """Return what ``look`` does for a network and the stages of an attack in the ball of ``threat``."""
    threat = replace(threat, goal="top1")
    images, ids = _apart(images, ids, threat)
    if not len(images):
        return {"images": 0, "found": 0, "by_stage": {}}
    readout, _, usable = plant(passes, images, ids, threat, seed, climb=climb)
    passes = replace(passes, module=readout)
    x = images[usable]
    chunk = Chunk(
        images=x,
        labels=torch.zeros(len(x), dtype=torch.long, device=x.device),
        logits=passes.logits(x),
        ids=ids[usable.cpu().numpy()],
    )
    searcher = searcher_of(passes, seed)
    searcher = replace(searcher, oracles={"float32": passes, "bfloat16": passes})
    standing, found = list(range(len(x))), {}
    for stage in stages:
        if stage.threat.radius != threat.radius:
            continue
        board = searcher.run(replace(stage, threat=threat), chunk, standing)
        fell = [row for row in standing if bool(board.broken[row])]
        found[stage.name] = len(fell)
        standing = [row for row in standing if row not in fell]
    return {"images": len(x), "found": sum(found.values()), "by_stage": found}


def plant(
    passes: Passes, images: Tensor, ids: np.ndarray, threat: ThreatModel, seed: int, *, climb: bool
) -> "tuple[Readout, Tensor, Tensor]":
    """Return the network with a readout for each image [n, C, H, W], the points planted for them [n, C, H, W], and the
    rows for which it tells that point from those within.
    """
    corner = threat.project(images + _outward(images, ids, threat, seed), images)
    inner = [_inner(images, ids, threat, seed, number) for number in range(_INNER)]
    answers = torch.stack([passes.logits(points).double() for points in inner], 1)
    answers = answers.nan_to_num(0, 0, 0)
    mean = answers.mean(1)
    spread = answers - mean[:, None]
    # Fisher's discriminant, with a little of the identity since a few answers may always be the same.
    scatter = spread.transpose(1, 2) @ spread / _INNER
    trace = scatter.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    scatter = scatter + 1e-3 * trace[:, None, None] * torch.eye(scatter.shape[1], device=scatter.device)
    towards = passes.logits(corner).double().nan_to_num(0, 0, 0) - mean
    weight = torch.linalg.solve(scatter, towards[:, :, None])[:, :, 0]
    highest = (answers @ weight[:, :, None])[:, :, 0].amax(1)
    readout = Readout(passes.module, images, weight, highest, torch.ones_like(highest), threat)
    above = replace(passes, module=readout)
    points = _climb(above, corner, images, threat) if climb else corner
    gap = above.logits(points)[:, 1].double()  # over the highest inner point, in the readout's own units
    usable = (gap > 1e-6 * highest.abs().clamp(min=1e-6)).nonzero()[:, 0]
    boundary, unit = highest + _HEIGHT * gap, gap.clamp(min=1e-12) / _SCALE
    return Readout(passes.module, images, weight, boundary, unit, threat), points, usable


class Readout(nn.Module):
    """A network that tells, around each of some images, one class from a planted other one.

    A point belongs to the nearest image: their balls do not touch. Answers are logits [n, 4]: 0, the readout in units
    of ``unit`` above ``boundary`` (both [images]), and two classes far below.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        weight: Tensor,
        boundary: Tensor,
        unit: Tensor,
        threat: ThreatModel,
    ) -> None:
        super().__init__()
        self.network, self.centres = network, images.flatten(1)
        self.weight, self.boundary, self.unit = weight, boundary, unit
        self.power = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}[threat.norm]

    def forward(self, points: Tensor) -> Tensor:
        near = torch.cdist(points.detach().flatten(1), self.centres, p=self.power).argmin(1)
        value = (self.network(points).double() * self.weight[near]).sum(1)
        score = ((value - self.boundary[near]) / self.unit[near]).float()
        zero = torch.zeros_like(score)
        far = score.detach().clamp(max=0) - _FAR
        return torch.stack([zero, score, far, far - 1], 1)


def _climb(passes: Passes, start: Tensor, images: Tensor, threat: ThreatModel) -> Tensor:
    """Return the points [n, C, H, W] to which steps along a readout's gradient lead from ``start``, each of them up."""
    lo, hi = threat.bounds(images)
    eps = torch.full((len(images),), threat.radius, device=images.device)
    best, step = start, eps / 4
    highest = passes.logits(best)[:, 1]
    for _ in range(_CLIMB):
        slope = torch.cat(
            [passes.ask(Query(points=part, loss=lambda z: z[:, 1])).slope for part in best.split(passes.batch)]
        ).nan_to_num(0, 0, 0)
        moved = best + rows(step, best) * geometry.steepest(slope, threat.norm if threat.norm != "l1" else "l2")
        moved = geometry.project(moved, images, lo, hi, eps, threat.norm)
        value = passes.logits(moved)[:, 1]
        up = value > highest
        best, highest = torch.where(rows(up, best), moved, best), torch.where(up, value, highest)
        step = torch.where(up, step, step * 0.6)
    return best


def _outward(images: Tensor, ids: np.ndarray, threat: ThreatModel, seed: int) -> Tensor:
    """Return a random perturbation [n, C, H, W] as long as the ball is wide: for Linf one of its corners."""
    draw = _draw(images, ids, seed, 0, "normal")
    if threat.norm == "linf":
        return draw.sign() * threat.radius
    return draw * rows(threat.radius / geometry.length(draw, threat.norm).float(), draw)


def _inner(images: Tensor, ids: np.ndarray, threat: ThreatModel, seed: int, number: int) -> Tensor:
    """Return random points [n, C, H, W] within the ball: uniform for Linf, else up to 0.9 of the way to the border."""
    if threat.norm == "linf":
        noise = 2 * _draw(images, ids, seed, number + 1, "uniform") - 1
        moved = images + _REACH * threat.radius * noise
    else:
        noise = _draw(images, ids, seed, number + 1, "normal")
        reach = _REACH * threat.radius * (number + 1) / _INNER
        moved = images + noise * rows(reach / geometry.length(noise, threat.norm).float(), noise)
    return threat.project(moved, images)


def _draw(images: Tensor, ids: np.ndarray, seed: int, step: int, kind: randomness.Kind) -> Tensor:
    zeros = [0] * len(ids)
    numbers = randomness.draw(
        tuple(images.shape[1:]), seed=seed, samples=ids.tolist(), name="planted", restarts=zeros, targets=zeros,
        step=step, kind=kind,
    )  # fmt: skip
    return to_device(numbers, images.device)


def _apart(images: Tensor, ids: np.ndarray, threat: ThreatModel) -> tuple[Tensor, np.ndarray]:
    """Return the first images, at most 16, whose balls do not touch."""
    kept: list[int] = []
    for row in range(len(images)):
        if len(kept) < QUANTUM and all(
            float(threat.distance(images[[row]], images[[other]])) > 2 * threat.radius for other in kept
        ):
            kept.append(row)
    return images[kept], ids[np.asarray(kept, dtype=np.int64)]
