"""The momentum iterative fast gradient sign method."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from robusteval.attacks import losses
from robusteval.attacks.base import Attack, Job, Query, State, Steps, rows
from robusteval.attacks.geometry import length, project, steepest

_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True)
class MIFGSM(Attack):
    """Steps along an accumulated gradient, from the image (Dong et al. 2018, https://arxiv.org/abs/1710.06081).

    The momentum is g <- decay g + gradient / ||gradient||_1 (equation 6), the step goes along its sign (Linf) or over
    its length (L2). ``step_size`` is in units of the norm; None takes eps / steps, as published. Costs at most
    steps + 1 forward and backward passes.
    """

    steps: Annotated[int, Ge(1)] = 10
    decay: Annotated[float, Ge(0)] = 1.0
    step_size: Annotated[float, Gt(0)] | None = None

    method: ClassVar[str] = "mifgsm"
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2"})
    optimum: ClassVar[bool] = True
    gradients: ClassVar[bool] = True

    def start(self, job: Job) -> State:
        return State(
            x0=job.x.clone(),
            x=job.x.clone(),
            y=job.y.clone(),
            lo=job.lo.clone(),
            hi=job.hi.clone(),
            eps=job.eps.clone(),
            momentum=torch.zeros_like(job.x),
            step=job.eps / self.steps if self.step_size is None else torch.full_like(job.eps, self.step_size),
            taken=torch.zeros_like(job.y),
            norm=job.norm,
        )

    def iterate(self, state: State) -> Steps:
        answer = yield Query(points=state.x, loss=lambda logits: losses.cross_entropy(logits, state.y))
        state.momentum = self.decay * state.momentum + _unit_l1(answer.slope)
        moved = state.x + rows(state.step, state.x) * steepest(state.momentum, state.norm)
        state.x = project(moved, state.x0, state.lo, state.hi, state.eps, state.norm)
        state.taken = state.taken + 1
        return state.taken > self.steps  # the last iterate was asked about, and moved for nothing


def _unit_l1(gradient: Tensor) -> Tensor:
    """Return each row over its L1 norm; a row of zeros stays one."""
    # Scaled first: of a confident network's gradient even the sum of absolute values may underflow.
    scaled = gradient / rows(length(gradient, "linf").clamp(min=_TINY), gradient)
    return scaled / rows(length(scaled, "l1").clamp(min=_TINY), gradient)
