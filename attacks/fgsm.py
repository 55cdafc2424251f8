"""The fast gradient sign method: one step of full length."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from robusteval.attacks import losses
from robusteval.attacks.base import Attack, Job, Query, State, Steps, rows
from robusteval.attacks.geometry import project, steepest


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """x + eps * steepest direction of the loss (Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572).

    Linf: the sign of the gradient; L2: the gradient over its length. Two forward passes and one backward pass a sample.
    """

    loss: Literal["ce", "margin", "dlr"] = "ce"

    method: ClassVar[str] = "fgsm"
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2"})
    optimum: ClassVar[bool] = True
    gradients: ClassVar[bool] = True

    def min_classes(self) -> int:
        return losses.min_classes(self.loss)

    def start(self, job: Job) -> State:
        return State(
            x=job.x.clone(), y=job.y.clone(), lo=job.lo.clone(), hi=job.hi.clone(), eps=job.eps.clone(), norm=job.norm
        )

    def iterate(self, state: State) -> Steps:
        answer = yield Query(points=state.x, loss=lambda logits: losses.evaluate(self.loss, logits, state.y, state.y))
        step = rows(state.eps, state.x) * steepest(answer.slope, state.norm)
        yield Query(points=project(state.x + step, state.x, state.lo, state.hi, state.eps, state.norm))
        return torch.ones(len(state.x), dtype=torch.bool, device=state.x.device)
