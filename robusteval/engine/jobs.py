"""What an attack is given to start from, and which of its points are kept: the same on every path of the engine."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from robusteval import randomness
from robusteval.attacks.base import Answer, Job
from robusteval.engine.queue import Queue, Ticket
from robusteval.engine.stages import Stage
from robusteval.engine.transfer import to_device
from robusteval.threat import ThreatModel

Point = Literal["first_success", "max_loss", "nearest"]
Marks = TypeVar("Marks", Tensor, np.ndarray)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Images [n, C, H, W], labels [n] and clean logits [n, classes] on the device; sample ids [n] on the host."""

    images: Tensor
    labels: Tensor
    logits: Tensor
    ids: np.ndarray


def job_of(stage: Stage, chunk: Chunk, queue: Queue, tickets: list[Ticket], seed: int) -> Job:
    """Return what ``tickets`` start from, a row each."""
    attack, threat = stage.attack, stage.threat
    device, restarts = chunk.images.device, attack.restarts()
    positions = [queue.position(ticket) for ticket in tickets]
    restart = [ticket.rank % restarts for ticket in tickets]
    target = [ticket.rank // restarts for ticket in tickets]
    at = to_device(np.array(positions, dtype=np.int64), device)
    x = chunk.images.index_select(0, at)
    # A minimum-norm search does not know the radius, so one run serves every radius.
    free = attack.keeps == "nearest"
    lo, hi = threat.box(x) if free else threat.bounds(x)
    radius = float("inf") if free else threat.radius
    region = threat.free(x)
    samples = [int(chunk.ids[position]) for position in positions]

    def draw(shape: tuple[int, ...], step: int = 0, kind: randomness.Kind = "uniform") -> Tensor:
        numbers = randomness.draw(
            shape,
            seed=seed,
            samples=samples,
            name=stage.draws,
            restarts=restart,
            targets=target,
            step=step,
            kind=kind,
        )
        return to_device(numbers, device)

    return Job(
        x=x,
        y=chunk.labels[at],
        logits=chunk.logits[at],
        sample=to_device(np.array(samples, dtype=np.int64), device),
        lo=lo,
        hi=hi,
        eps=torch.full((len(x),), radius, device=device),
        norm=threat.norm,
        restart=to_device(np.array(restart, dtype=np.int64), device),
        target=to_device(np.array(target, dtype=np.int64), device),
        draw=draw,
        region=None if region is None else region.expand(len(x), *region.shape),
    )


def confined(answer: Answer, threat: ThreatModel) -> Answer:
    """Return the answer with a gradient of zeros outside the region: so steepest ascent is that of what may change."""
    if threat.region is None or answer.gradient is None:
        return answer
    return dataclasses.replace(answer, gradient=threat.confine(answer.gradient, 0.0))


def outranks(missed: Marks, broken: Marks, higher: Marks, point: Point) -> Marks:
    """Return which points [slots] are to be kept instead of those that are, if they lie inside the threat.

    ``missed`` says whether the new point is misclassified, ``broken`` whether the kept one is, ``higher`` whether the
    new one's loss is higher. Broken points outrank others; among equals the higher loss wins. A settled sample keeps
    its first success.
    """
    better = (~broken & (missed | higher)) | (missed & higher)
    return better & ~broken if point == "first_success" else better
