"""The fast adaptive boundary attack: the nearest point of the decision boundary, linearised again and again."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from robusteval.attacks import losses
from robusteval.attacks.base import Attack, Job, Query, State, Steps, chosen, nearest_classes, rows
from robusteval.attacks.geometry import length, total
from robusteval.attacks.hyperplane import onto_hyperplane
from robusteval.attacks.start import noise_of_length


@dataclass(frozen=True, kw_only=True)
class FAB(Attack):
    """Steps onto the linearised decision boundary, drawn towards the image (Croce & Hein 2020,
    https://arxiv.org/abs/1907.02044, algorithm 1), in its targeted form FAB-T: the boundary of the label and one other
    class at a time, the ``n_targets`` most likely ones in turn; with ``targeted`` false the boundary that is nearest by
    its linearisation, which takes a backward pass a class.

    Each step goes ``eta`` times as far as the boundary is, from the point and from the image, and mixes the two with a
    weight of at most ``alpha_max`` for the image; an adversarial point is drawn back to ``beta`` of its distance.
    The first restart starts at the image, others at distance eps / 2. It searches the nearest adversarial point and
    wanders outside the ball, so what it finds inside is within eps, but eps does not guide it. Costs at most 2 steps
    forward and steps backward passes for each restart and target, untargeted as many backward as there are classes.
    """

    steps: Annotated[int, Ge(1)] = 100
    n_restarts: Annotated[int, Ge(1)] = 1
    targeted: bool = True
    n_targets: Annotated[int, Ge(1)] = 9
    alpha_max: Annotated[float, Ge(0), Le(1)] = 0.1
    eta: Annotated[float, Ge(1)] = 1.05
    beta: Annotated[float, Gt(0), Lt(1)] = 0.9

    method: ClassVar[str] = "fab"
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2", "l1"})
    optimum: ClassVar[bool] = True
    gradients: ClassVar[bool] = True
    most_classes: ClassVar[int] = 100  # of the untargeted form, which keeps a gradient a class

    def restarts(self) -> int:
        return self.n_restarts

    def targets(self, classes: int) -> int:
        return min(self.n_targets, classes - 1) if self.targeted else 1

    def max_classes(self) -> int | None:
        return None if self.targeted else self.most_classes

    def start(self, job: Job) -> State:
        x0 = job.x.clone()
        again = rows(job.restart > 0, x0)
        x = torch.where(again, noise_of_length(job, job.eps / 2), x0) if self.n_restarts > 1 else x0.clone()
        return State(
            norm=job.norm,
            x0=x0,
            x=x,
            y=job.y.clone(),
            t=nearest_classes(job.logits, job.y, job.target),
            taken=torch.zeros_like(job.y),
            region=None if job.region is None else job.region.clone(),
        )

    def _beyond(self, x: Tensor, slope: Tensor, gap: Tensor, norm: str) -> tuple[Tensor, Tensor]:
        """Return points [slots, ...] eta times as far from ``x`` as the hyperplane is, and how far that is [slots]."""
        flat = x.flatten(1)
        lo, hi = flat.new_zeros(()).expand_as(flat), flat.new_ones(()).expand_as(flat)
        d = onto_hyperplane(flat, slope.flatten(1), gap, lo, hi, norm)
        distance = length(d, norm).clamp(min=1e-8)
        return d.mul_(self.eta).add_(flat).view_as(x), distance

    def iterate(self, state: State) -> Steps:
        s = state
        if self.targeted:
            answer = yield Query(points=s.x, loss=lambda logits: losses.lead(logits, s.y, s.t))
            lead, slope = answer.value.nan_to_num(0, 0, 0), answer.slope
        else:
            answer = yield Query(points=s.x, loss=lambda logits: logits - logits.gather(1, s.y[:, None]))
            lead, slope = _nearest_boundary(answer.value.nan_to_num(0, 0, 0), answer.slope, s.y, s.norm)
        # The same hyperplane as seen from the point and from the image.
        here, near = self._beyond(s.x, slope, lead, s.norm)
        there, far = self._beyond(s.x0, slope, lead + total((s.x0 - s.x).mul_(slope)), s.norm)
        weight = rows((near / (near + far)).clamp(max=self.alpha_max), s.x)
        s.x = here.mul_(1 - weight).add_(there.mul_(weight)).clamp_(0, 1)
        if s.region is not None:  # where the slope is zero the mixture is the image but for a rounding
            s.x = torch.where(s.region, s.x, s.x0)
        answer = yield Query(points=s.x)
        missed = answer.logits.argmax(1) != s.y
        s.x = chosen(missed, s.x0 + self.beta * (s.x - s.x0), s.x)
        s.taken = s.taken + 1
        return s.taken >= self.steps


_DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


def _nearest_boundary(leads: Tensor, slopes: Tensor, y: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """Return lead [slots] and slope [slots, ...] of the class whose linearised boundary is nearest.

    ``leads`` [slots, classes] are the logits less the label's, ``slopes`` [slots, classes, ...] their gradients.
    """
    steepness = length(slopes.flatten(0, 1), _DUAL[norm]).view_as(leads)
    distance = (leads.abs() / (steepness + 1e-12)).scatter(1, y[:, None], torch.inf)
    nearest = distance.argmin(1)
    slot = torch.arange(len(y), device=y.device)
    return leads[slot, nearest], slopes[slot, nearest]
