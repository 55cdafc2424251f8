"""The attack of Carlini and Wagner in L2, with binary search over its constant."""

import functools
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from robusteval.attacks import losses
from robusteval.attacks.base import Attack, Job, Query, State, Steps, nearest_classes, rows
from robusteval.attacks.geometry import length

_DECAY, _SQUARES_DECAY = 0.9, 0.999  # of Adam's averages
_EDGE = 1 - 1e-6  # how near to the edge of the box a search may start: at the edge itself tanh has no slope
_PATIENCE = 0.9999


@dataclass(frozen=True, kw_only=True)
class CW(Attack):
    """Minimises ||d||_2^2 + c max(confidence - margin, 0) by Adam, over tanh so that the box holds by itself (Carlini &
    Wagner 2017, https://arxiv.org/abs/1608.04644, section VI.A).

    The margin is that of one other class at a time over the label, the ``n_targets`` most likely ones in turn; with
    ``targeted`` false that of whichever other class leads, which ends farther away for some images. The constant c
    starts at ``constant``. Each of ``searches`` runs of ``steps`` starts anew at the image, with c ten times larger
    until one succeeds, then halfway between the largest that failed and the smallest that succeeded. With
    ``abort_early`` a run ends when a tenth of its steps brought less than a hundredth of a per cent. Costs at most
    searches * steps forward and backward passes a target, and the engine's on each nearer point.
    """

    targeted: bool = True
    n_targets: Annotated[int, Ge(1)] = 3
    searches: Annotated[int, Ge(1)] = 9
    steps: Annotated[int, Ge(1)] = 1000
    learning_rate: Annotated[float, Gt(0)] = 0.01
    constant: Annotated[float, Gt(0), Lt(1e9)] = 0.001
    confidence: Annotated[float, Ge(0)] = 0.0
    abort_early: bool = True

    method: ClassVar[str] = "cw"
    norms: ClassVar[frozenset[str]] = frozenset({"l2"})
    optimum: ClassVar[bool] = True
    keeps: ClassVar[Literal["first", "nearest"]] = "nearest"
    gradients: ClassVar[bool] = True

    def targets(self, classes: int) -> int:
        return min(self.n_targets, classes - 1) if self.targeted else 1

    def start(self, job: Job) -> State:
        half = (job.hi - job.lo) / 2
        middle = job.lo + half
        inner = ((job.x - middle) / half.clamp(min=torch.finfo(half.dtype).tiny)).clamp(-1, 1) * _EDGE
        # atanh(inner) by logarithms: torch.atanh gives a value other bits at another place of the tensor.
        w0 = (inner.log1p() - (-inner).log1p()) / 2
        zeros, ones = torch.zeros_like(job.eps), torch.ones_like(job.eps)
        return State(
            # Distances count from the image as tanh gives it: Adam would take a rounding for a slope.
            x0=_image(w0, job.lo, job.hi)[0],
            y=job.y.clone(),
            t=nearest_classes(job.logits, job.y, job.target),
            lo=job.lo.clone(),
            hi=job.hi.clone(),
            w0=w0,
            w=w0.clone(),
            average=torch.zeros_like(w0),
            squares=torch.zeros_like(w0),
            constant=self.constant * ones,
            failed=zeros,
            succeeded=torch.inf * ones,
            reached=torch.zeros_like(job.y, dtype=torch.bool),
            before=torch.inf * ones,
            taken=torch.zeros_like(job.y),
            ended=torch.zeros_like(job.y),
        )

    def iterate(self, state: State) -> Steps:
        x, slope = _image(state.w, state.lo, state.hi)

        def lacking(logits: Tensor) -> Tensor:
            ahead = losses.lead(logits, state.y, state.t) if self.targeted else losses.margin(logits, state.y)
            return (self.confidence - ahead).clamp(min=0)

        answer = yield Query(points=x, loss=lacking)
        d = x - state.x0
        value = length(d, "l2") ** 2 + state.constant * answer.value
        state.reached = state.reached | ~(answer.value > 0)  # logits of NaN count as broken
        gradient = (2 * d + rows(state.constant, d) * answer.slope) * slope
        state.taken = state.taken + 1
        self._adam(state, gradient)
        self._next_search(state, value)
        return state.ended >= self.searches

    def _adam(self, state: State, gradient: Tensor) -> None:
        """Move every slot by one step of Adam (Kingma & Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1)."""
        state.average = _DECAY * state.average + (1 - _DECAY) * gradient
        state.squares = _SQUARES_DECAY * state.squares + (1 - _SQUARES_DECAY) * gradient * gradient
        first, second = (1 - _powers(self.steps, gradient.device)[:, state.taken]).unbind()
        size = (state.squares / rows(second, gradient)).sqrt() + 1e-8
        state.w = state.w - self.learning_rate * (state.average / rows(first, gradient)) / size

    def _next_search(self, state: State, value: Tensor) -> None:
        """Let every slot whose run is over begin another, with the next constant."""
        over = state.taken >= self.steps
        looks = state.taken % max(self.steps // 10, 1) == 0
        if self.abort_early:
            over = over | (looks & (value > _PATIENCE * state.before))
            state.before = torch.where(looks, value, state.before)
        state.succeeded = torch.where(over & state.reached, state.constant.minimum(state.succeeded), state.succeeded)
        state.failed = torch.where(over & ~state.reached, state.constant.maximum(state.failed), state.failed)
        bounded = state.succeeded.isfinite()
        following = torch.where(bounded, (state.failed + state.succeeded) / 2, 10 * state.constant)
        state.constant = torch.where(over, following, state.constant)
        state.w = torch.where(rows(over, state.w), state.w0, state.w)
        for name in ("average", "squares"):
            setattr(state, name, getattr(state, name).masked_fill(rows(over, state.w), 0))
        state.before = state.before.masked_fill(over, math.inf)
        state.reached = state.reached & ~over & ~looks
        state.taken = state.taken.masked_fill(over, 0)
        state.ended = state.ended + over


@functools.lru_cache(maxsize=16)
def _powers(steps: int, device: torch.device) -> Tensor:
    """Return the decays to the powers 0 to ``steps``, [2, steps + 1]."""
    return torch.tensor(
        [[decay**step for step in range(steps + 1)] for decay in (_DECAY, _SQUARES_DECAY)], device=device
    )


def _image(w: Tensor, lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image between lo and hi that ``w`` stands for, and its derivative, both of the shape of ``w``."""
    half, tanh = (hi - lo) / 2, w.tanh()
    return (lo + half + half * tanh).clamp(lo, hi), half * (1 - tanh * tanh)
