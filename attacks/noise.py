"""Random noise: the baseline that any attack must beat."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge

from robusteval.attacks.base import Attack, Job, Query, State, Steps
from robusteval.attacks.start import uniform_in_ball


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """Tries ``queries`` independent uniform points of the ball. One forward pass each, no gradients."""

    queries: Annotated[int, Ge(1)] = 10

    method: ClassVar[str] = "noise"
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2", "l1", "unbounded"})

    def restarts(self) -> int:
        return self.queries

    def start(self, job: Job) -> State:
        return State(x=uniform_in_ball(job))

    def iterate(self, state: State) -> Steps:
        yield Query(points=state.x)
        return torch.ones(len(state.x), dtype=torch.bool, device=state.x.device)
