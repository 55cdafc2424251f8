"""Auto-PGD: projected gradient ascent that chooses its own step sizes."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from robusteval.attacks import losses
from robusteval.attacks.base import Attack, Job, Query, State, Steps, chosen, nearest_classes, rows
from robusteval.attacks.geometry import project, project_l1_in_box, sparse_sign, steepest
from robusteval.attacks.start import dimension, noise_of_length, support_of_noise

_MOMENTUM = 0.75  # weight of the new step, the rest being the previous one
_RISES = 0.75  # share of a window's steps that must raise the loss, or the step is halved
_SPARSER = 1.5  # L1: how much sparser a step is than the best perturbation, and how fast steps shrink
_STEEPEST = 1e38  # L1: the largest entry of a gradient, of which only signs and order matter
_SHORTEST = 0.1  # L1: the shortest step, in units of the longest


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Ascent with momentum, whose step is halved, and which goes back to its best point, where it has stopped rising
    (Croce & Hein 2020, https://arxiv.org/abs/2003.01690, algorithm 1).

    The first step has length 2 eps; whether the loss rose is looked at after 22 % of the steps, then at intervals that
    shrink by 3 % down to 6 %. In L1 (Croce & Hein 2021, https://arxiv.org/abs/2103.01208): steps along the signs of few
    gradient entries, as few as the best perturbation suggests, each projected onto ball and box together; with
    ``large_eps`` (L1 only) 30 % of the steps search the ball of 3 eps, 30 % that of 2 eps, and only the rest that of
    eps, each from the best point before. The targeted losses try the ``n_targets`` most likely wrong classes in turn.
    ``eot`` is the number of passes that each gradient is the mean of, for randomised networks. Costs at most eot
    (steps + 1) forward and backward passes for each restart and target, with ``large_eps`` eot (steps + 3).
    """

    steps: Annotated[int, Ge(1)] = 100
    n_restarts: Annotated[int, Ge(1)] = 1
    n_targets: Annotated[int, Ge(1)] = 9
    loss: Literal["ce", "dlr", "targeted_ce", "targeted_dlr"] = "ce"
    large_eps: bool = True
    eot: Annotated[int, Ge(1)] = 1

    method: ClassVar[str] = "apgd"
    revision: ClassVar[int] = 2
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2", "l1"})
    optimum: ClassVar[bool] = True
    gradients: ClassVar[bool] = True

    def min_classes(self) -> int:
        return losses.min_classes(self.loss)

    def averages(self) -> bool:
        return self.eot > 1

    def restarts(self) -> int:
        return self.n_restarts

    def targets(self, classes: int) -> int:
        return min(self.n_targets, classes - 1) if losses.targeted(self.loss) else 1

    def phases(self, norm: str) -> tuple[tuple[float, int], ...]:
        """Return the (radius in eps, steps) of the searches that follow one another, each from the last one's best."""
        if norm != "l1" or not self.large_eps or self.steps < 3:
            return ((1.0, self.steps),)
        share = math.ceil(0.3 * self.steps)
        return ((3.0, share), (2.0, share), (1.0, self.steps - 2 * share))

    def start(self, job: Job) -> State:
        phases = self.phases(job.norm)
        radius = job.eps * phases[0][0]
        x = noise_of_length(job, radius)
        zero = torch.zeros_like(job.y)
        state = State(
            norm=job.norm,
            x0=job.x.clone(),
            lo=job.lo.clone(),
            hi=job.hi.clone(),
            y=job.y.clone(),
            t=nearest_classes(job.logits, job.y, job.target),
            eps=job.eps.clone(),
            radius=radius,
            phase=zero.clone(),
            taken=zero.clone(),
            x=x,
            before=x.clone(),
            best=x.clone(),
            uphill=torch.zeros_like(x),
            highest=torch.full_like(job.eps, -torch.inf),
            step=radius * (1 if job.norm == "l1" else 2),
            since=zero.clone(),
            window=torch.full_like(zero, self._first_window(job.norm, phases[0][1])),
        )
        if job.norm == "l1":
            # Before a first look at sparsity, steps of one entry in five; a start from elsewhere shows its own.
            sparse, free = len(phases) > 1, dimension(job)
            state.support = support_of_noise(job, x) if sparse else torch.zeros_like(job.eps) + free
            fifth = torch.full_like(job.eps, 0.2) * (free / x[0].numel())
            state.density = state.support / (x[0].numel() * _SPARSER) if sparse else fifth
        else:
            state.last_loss = torch.zeros_like(job.eps)
            state.last_highest = state.highest.clone()
            state.rises = zero.clone()
            state.halved = torch.ones_like(zero, dtype=torch.bool)
        return state

    def iterate(self, state: State) -> Steps:
        s = state
        answer = yield Query(
            points=s.x, loss=lambda logits: losses.evaluate(self.loss, logits, s.y, s.t), repeat=self.eot
        )
        loss, first = answer.value, s.taken == 0
        way = answer.slope.clamp(-_STEEPEST, _STEEPEST) if s.norm == "l1" else steepest(answer.slope, s.norm)
        better = loss > s.highest
        s.best, s.uphill = chosen(better, s.x, s.best), chosen(better, way, s.uphill)
        s.highest = torch.where(better, loss, s.highest)
        s.since = s.since + ~first
        look = s.since == s.window
        back = _adapt_sparsity(s, look) if s.norm == "l1" else self._adapt_step(s, look, loss, first)
        s.since = s.since.masked_fill(look, 0)
        x, way = chosen(back, s.best, s.x), chosen(back, s.uphill, way)
        s.before, s.x = x, _sparse_step(s, x, way) if s.norm == "l1" else _step(s, x, way, first)
        s.taken = s.taken + 1
        phases = self.phases(s.norm)
        if len(phases) == 1:
            return s.taken > self.steps
        done = s.taken > torch.tensor([steps for _, steps in phases], device=s.taken.device)[s.phase]
        self._next_phase(s, done & (s.phase < len(phases) - 1), phases)
        return done & (s.taken > 0)

    def _first_window(self, norm: str, steps: int) -> int:
        return max(int((0.04 if norm == "l1" else 0.22) * steps), 1)

    def _adapt_step(self, s: State, look: Tensor, loss: Tensor, first: Tensor) -> Tensor:
        """Halve the steps of slots that stopped rising since their last look, and return which go back to their best.

        The loss before the first step counts as 0, whatever it was: so does the reference implementation.
        """
        s.rises = s.rises + ((loss > s.last_loss) & ~first)
        s.last_loss = loss.masked_fill(first, 0)
        s.last_highest = torch.where(first, s.highest, s.last_highest)
        stuck = ~s.halved & (s.last_highest >= s.highest)
        halve = look & ((s.rises <= _RISES * s.window) | stuck)
        s.step = torch.where(halve, s.step / 2, s.step)
        s.halved = torch.where(look, halve, s.halved)
        s.last_highest = torch.where(look, s.highest, s.last_highest)
        s.rises = s.rises.masked_fill(look, 0)
        shrink, shortest = max(int(0.03 * self.steps), 1), max(int(0.06 * self.steps), 1)
        s.window = torch.where(look, (s.window - shrink).clamp(min=shortest), s.window)
        return halve

    def _next_phase(self, s: State, ended: Tensor, phases: tuple[tuple[float, int], ...]) -> None:
        """Let the slots whose phase has ended begin the next: from their best point, in a smaller ball."""
        if not ended.any():
            return
        s.phase = s.phase + ended
        factors = torch.tensor([factor for factor, _ in phases], device=s.x.device)
        windows = torch.tensor([self._first_window(s.norm, steps) for _, steps in phases], device=s.x.device)
        s.radius = s.eps * factors[s.phase]
        s.window = windows[s.phase]
        s.x[ended] = project_l1_in_box(s.best[ended], s.x0[ended], s.lo[ended], s.hi[ended], s.radius[ended])
        support = _support(s.x, s.x0)
        s.support = torch.where(ended, support, s.support)
        s.density = torch.where(ended, support / (s.x[0].numel() * _SPARSER), s.density)
        s.step = torch.where(ended, s.radius, s.step)
        s.highest = s.highest.masked_fill(ended, -torch.inf)
        s.taken, s.since = s.taken.masked_fill(ended, 0), s.since.masked_fill(ended, 0)


def _step(s: State, x: Tensor, way: Tensor, first: Tensor) -> Tensor:
    """Return where one step with momentum leads from ``x``, projected before and after the momentum."""
    # In place where memory is fresh: on a small network the traffic would cost as much as the passes.
    ahead = (way * rows(s.step, x)).add_(x)
    ahead = project(ahead, s.x0, s.lo, s.hi, s.eps, s.norm, reuse=True)
    weight = rows(torch.where(first, 1.0, _MOMENTUM), x)
    moved = ahead.sub_(x).mul_(weight).add_(x).add_((x - s.before).mul_(1 - weight))
    return project(moved, s.x0, s.lo, s.hi, s.eps, s.norm, reuse=True)


def _sparse_step(s: State, x: Tensor, slope: Tensor) -> Tensor:
    moved = x + rows(s.step, x) * sparse_sign(slope, s.density)
    return project_l1_in_box(moved, s.x0, s.lo, s.hi, s.radius)


def _support(x: Tensor, x0: Tensor) -> Tensor:
    """Return how many values of each row are changed, [slots] float."""
    return (x != x0).flatten(1).sum(1).float()


def _adapt_sparsity(s: State, look: Tensor) -> Tensor:
    """Fit density and step to the best point, and return which slots go back to it: those that became sparser."""
    support = _support(s.best, s.x0)
    sparser = look & (support / s.support < 0.95)
    shorter = (s.step / _SPARSER).maximum(s.radius * _SHORTEST)
    s.step = torch.where(look, torch.where(sparser, s.radius, shorter), s.step)
    s.density = torch.where(look, support / (s.x[0].numel() * _SPARSER), s.density)
    s.support = torch.where(look, support, s.support)
    return sparser
