"""Projected gradient descent."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt

from robusteval.attacks import losses
from robusteval.attacks.base import Attack, Job, Query, State, Steps, nearest_classes, rows
from robusteval.attacks.geometry import project, steepest
from robusteval.attacks.start import uniform_in_ball

# Length of all steps together, in radii. In L2 projected steps only turn a start at right angles: after t radii an
# angle a with tan(a/2) = exp(-t) is left, and t = 2.5 would end 1.3 % short of the optimum of a linear model.
_TRAVEL = {"linf": 2.5, "l2": 5.0}


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Steps of fixed length along the steepest direction, each projected (Madry et al. 2018,
    https://arxiv.org/abs/1706.06083).

    ``step_size`` is in units of the norm; None takes 2.5 eps / steps, in L2 twice that. ``init`` starts at a uniform
    point of the ball or at the image. The targeted losses try the ``n_targets`` most likely wrong classes in turn.
    Every iterate counts, not only the last. ``eot`` is the number of passes that each gradient is the mean of, for
    randomised networks. Costs at most eot (steps + 1) forward and backward passes for each restart and target.
    """

    steps: Annotated[int, Ge(1)] = 40
    step_size: Annotated[float, Gt(0)] | None = None
    n_restarts: Annotated[int, Ge(1)] = 1
    n_targets: Annotated[int, Ge(1)] = 9
    loss: losses.LossName = "ce"
    init: Literal["random", "zero"] = "random"
    eot: Annotated[int, Ge(1)] = 1

    method: ClassVar[str] = "pgd"
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2"})
    optimum: ClassVar[bool] = True
    gradients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.init == "zero" and self.n_restarts > 1:
            raise ValueError(f"n_restarts={self.n_restarts} from init=zero would repeat one search; use init=random")

    def min_classes(self) -> int:
        return losses.min_classes(self.loss)

    def averages(self) -> bool:
        return self.eot > 1

    def restarts(self) -> int:
        return self.n_restarts

    def targets(self, classes: int) -> int:
        return min(self.n_targets, classes - 1) if losses.targeted(self.loss) else 1

    def start(self, job: Job) -> State:
        return State(
            x0=job.x.clone(),
            x=uniform_in_ball(job) if self.init == "random" else job.x.clone(),
            y=job.y.clone(),
            t=nearest_classes(job.logits, job.y, job.target),
            lo=job.lo.clone(),
            hi=job.hi.clone(),
            eps=job.eps.clone(),
            step=_TRAVEL[job.norm] * job.eps / self.steps
            if self.step_size is None
            else torch.full_like(job.eps, self.step_size),
            taken=torch.zeros_like(job.y),
            norm=job.norm,
        )

    def iterate(self, state: State) -> Steps:
        answer = yield Query(
            points=state.x,
            loss=lambda logits: losses.evaluate(self.loss, logits, state.y, state.t),
            repeat=self.eot,
        )
        moved = steepest(answer.slope, state.norm).mul_(rows(state.step, state.x)).add_(state.x)
        state.x = project(moved, state.x0, state.lo, state.hi, state.eps, state.norm, reuse=True)
        state.taken = state.taken + 1
        return state.taken > self.steps  # the last iterate was asked about, and moved for nothing
