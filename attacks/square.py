"""The Square attack: random search over square windows, by the answers alone."""

import functools
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from robusteval.attacks import losses
from robusteval.attacks.asking import may_ask
from robusteval.attacks.base import Attack, Job, Query, State, Steps, chosen, rows
from robusteval.attacks.geometry import length, project, project_l1_in_box

# After so many queries (of 10 000) the share of the image that a window covers is halved once more.
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_WINDOWS, _START = 0, 1  # steps of the job's draws


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Changes one random square window at a time and keeps what raises the margin (Andriushchenko et al. 2020,
    https://arxiv.org/abs/1912.00049; Linf: algorithm 2, L2: algorithm 3; L1 as in Croce & Hein 2021,
    https://arxiv.org/abs/2103.01208).

    ``p_init`` is the share of the image that the first windows cover; their side shrinks by a fixed schedule, which
    ``resc_schedule`` stretches from 10 000 to the given queries. The loss is the margin, as in AutoAttack.
    In a region windows are drawn among those that meet it, and change what of it they hold. Costs one forward pass for
    the start and one for each of ``queries`` windows.
    """

    queries: Annotated[int, Ge(1)] = 5000
    p_init: Annotated[float, Gt(0), Le(1)] = 0.8
    resc_schedule: bool = False

    method: ClassVar[str] = "square"
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2", "l1"})

    def start(self, job: Job) -> State:
        channels, height, width = job.x.shape[1:]
        linf = job.norm == "linf"
        # All steps of a job in one draw: corners, then a sign for each channel, and but for Linf how the pattern lies.
        corners = 2 if linf else 4
        drawn = job.draw((self.queries, corners + channels + (not linf)), step=_WINDOWS)
        side = _schedule(self, height, width, job.norm, job.x.device).side
        room = torch.stack([height - side + 1, width - side + 1], 1).repeat(1, corners // 2)
        corner, up = (drawn[..., :corners] * room).floor(), drawn[..., corners:] < 0.5
        if job.region is not None:
            corner = torch.cat([_meeting(job.region[0, 0], side, pair) for pair in drawn[..., :corners].split(2, 2)], 2)
        return State(
            x0=job.x.clone(),
            x=_stripes(job) if linf else _tiles(job),
            best=job.x.clone(),
            margin=torch.full_like(job.eps, -torch.inf),
            y=job.y.clone(),
            lo=job.lo.clone(),
            hi=job.hi.clone(),
            eps=job.eps.clone(),
            drawn=torch.cat([corner, up], 2).short(),
            taken=torch.zeros_like(job.y),
            norm=job.norm,
            region=None if job.region is None else job.region.float(),
        )

    def iterate(self, state: State) -> Steps:
        answer = yield Query(points=state.x)
        margin = losses.margin(answer.logits, state.y)
        better = margin > state.margin
        state.best = chosen(better, state.x, state.best)
        state.margin = torch.where(better, margin, state.margin)
        step = state.taken.clamp(max=self.queries - 1)
        move = _linf_window if state.norm == "linf" else _two_windows
        state.x = move(state, _schedule(self, state.x.shape[2], state.x.shape[3], state.norm, state.x.device), step)
        state.taken = state.taken + 1
        return state.taken > self.queries  # the last window was asked about, and one more made for nothing


class _Schedule(NamedTuple):
    """The ``side`` [queries] of the windows at each step, the ``largest`` one, and but for Linf the ``patterns``.

    [sizes, 2, largest side, largest side], by ``size`` [queries], each with its transpose.
    """

    side: Tensor
    largest: int
    size: Tensor
    patterns: Tensor


@functools.lru_cache(maxsize=16)
def _schedule(attack: Square, height: int, width: int, norm: str, device: torch.device) -> _Schedule:
    side = torch.tensor(sides(attack, height, width, norm))
    distinct, size = side.unique(return_inverse=True)
    largest = int(distinct[-1])
    patterns = torch.zeros(len(distinct), 2, largest, largest)
    for number, length_of in enumerate(distinct.tolist() if norm != "linf" else ()):
        patterns[number, :, :length_of, :length_of] = pattern(length_of, norm)
    return _Schedule(side.to(device), largest, size.to(device), patterns.to(device))


def sides(attack: Square, height: int, width: int, norm: str) -> list[int]:
    """Return the side of the window of every step: within the image; but for Linf odd and, if it fits, at least 3."""
    found = []
    for step in range(attack.queries):
        at = int(step / attack.queries * 10_000) if attack.resc_schedule else step
        share = attack.p_init / 2 ** sum(at > after for after in _HALVED_AFTER)
        side = max(round(math.sqrt(share * height * width)), 1 if norm == "linf" else 3)
        side += norm != "linf" and side % 2 == 0
        found.append(min(side, height, width))
    return found


def _drawn(state: State, schedule: _Schedule, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what was drawn for ``step`` [slots]: the window's side, its corner(s), and what points up (1 or 0)."""
    at = step[:, None, None].expand(-1, 1, state.drawn.shape[2])
    corners = 2 if state.norm == "linf" else 4
    drawn = state.drawn.gather(1, at)[:, 0].long()
    return schedule.side.index_select(0, step), drawn[:, :corners], drawn[:, corners:]


def _window(corner: Tensor, side: Tensor, height: int, width: int) -> Tensor:
    """Return 1 in the squares and 0 elsewhere, [slots, 1, height, width].

    ``corner`` [slots, 2] is the upper left one, ``side`` [slots] its length. In numbers, since torch is slow at masks.
    """
    down = torch.arange(height, device=side.device) - corner[:, :1]
    across = torch.arange(width, device=side.device) - corner[:, 1:]
    inside = [((place >= 0) & (place < side[:, None])).float() for place in (down, across)]
    return (inside[0][:, :, None] * inside[1][:, None, :])[:, None]


def _meeting(region: Tensor, side: Tensor, drawn: Tensor) -> Tensor:
    """Return corners [slots, queries, 2] of windows of each query's ``side`` that meet the region [H, W].

    Uniform among all such windows, by the first of two numbers ``drawn`` [slots, queries, 2]; a window that does not
    meet the region would be a query spent on the point before.
    """
    before = torch.nn.functional.pad(region.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    corner = torch.empty_like(drawn, dtype=torch.short)
    for length_of in sorted(set(side.tolist())):
        inside = before[length_of:, length_of:] - before[:-length_of, length_of:]
        inside = inside - before[length_of:, :-length_of] + before[:-length_of, :-length_of]
        meets = (inside > 0.5).nonzero()
        at = side == length_of
        corner[:, at] = meets[(drawn[:, at, 0].double() * len(meets)).long()].short()
    return corner


def _stripes(job: Job) -> Tensor:
    """Return the start of the Linf search: vertical stripes, each column and channel at one end of the ball."""
    _, channels, _, width = job.x.shape
    up = job.draw((channels, 1, width), step=_START) < 0.5
    return torch.where(up, job.hi, job.lo)


def _linf_window(state: State, schedule: "_Schedule", step: Tensor) -> Tensor:
    """Return the best point with one window at an end of the ball: 2 eps up or down, then projected, ends there.

    Only a part of each image is worked on that holds its window: the whole would cost a small network's pass again.
    """
    height, width = state.best.shape[2:]
    side, corner, up = _drawn(state, schedule, step)
    largest = int(side.max()) if may_ask() else schedule.largest
    start = torch.stack([corner[:, 0].clamp(max=height - largest), corner[:, 1].clamp(max=width - largest)], 1)
    at = (start[:, :1] * width + start[:, 1:]) + _places(largest, tuple(state.best.shape[1:]), side.device)
    best, lo, hi = (images.flatten(1) for images in (state.best, state.lo, state.hi))
    # Weights of 0 and 1, which are exact: an end of the ball in the window, the best point beside it.
    upward = up[:, :, None].expand(-1, -1, largest**2).flatten(1).float()
    moved = lo.gather(1, at).lerp(hi.gather(1, at), upward)
    if not may_ask() or int(side.min()) < largest:
        away = (start - corner)[:, :, None] + torch.arange(largest, device=side.device)
        inside = ((away >= 0) & (away < side[:, None, None])).float()
        window = (inside[:, 0, :, None] * inside[:, 1, None, :]).flatten(1).repeat(1, up.shape[1])
        moved = best.gather(1, at).lerp(moved, window)
    return best.scatter(1, at, moved).view_as(state.best)


@functools.lru_cache(maxsize=64)
def _places(side: int, shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Return how far the values of a square of so many pixels lie behind its first one in an image's memory."""
    channels, height, width = shape
    near = torch.arange(side, device=device)
    planes = torch.arange(channels, device=device) * (height * width)
    return (planes[:, None, None] + near[:, None] * width + near).flatten()


def _tiles(job: Job) -> Tensor:
    """Return the start of the L2 and L1 searches: a grid of patterns, at least five a side, in the ball."""
    n, channels, height, width = job.x.shape
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    drawn = job.draw((channels + 1, down, across), step=_START)
    lying = pattern(side, job.norm).to(job.x.device)[(drawn[:, -1] < 0.5).long()]  # [n, down, across, side, side]
    signed = lying[:, None] * (1 - 2 * (drawn[:, :-1] < 0.5).float())[..., None, None]
    grid = signed.transpose(3, 4).reshape(n, channels, down * side, across * side)
    d = torch.zeros_like(job.x)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    d[:, :, top : top + down * side, left : left + across * side] = grid
    if job.region is not None:
        d = torch.where(job.region, d, 0.0)
    return _into_ball(d, job.x, job.lo, job.hi, job.eps, job.norm)


def _two_windows(state: State, schedule: "_Schedule", step: Tensor) -> Tensor:
    """Return the best point with a pattern added in one window, and the length that another window gave up for it."""
    height, width = state.x.shape[2:]
    side, corner, up = _drawn(state, schedule, step)
    d = state.best - state.x0
    gains, gives = _window(corner[:, :2], side, height, width), _window(corner[:, 2:], side, height, width)
    if state.region is not None:  # of a window only what may change counts
        gains, gives = gains * state.region, gives * state.region
    used, inside = length(d, state.norm), d * torch.maximum(gains, gives)
    given, old = _per_channel(inside, state.norm), d * gains
    sign = (1 - 2.0 * up[:, :-1])[..., None, None]
    new = _placed(schedule.patterns, schedule.size[step], up[:, -1], corner[:, :2], height, width) * gains
    new = (new * sign).add_(old.div_(_per_channel(old, state.norm) + 1e-12))
    if state.norm == "l2":
        may = (rows((state.eps**2 - used**2).clamp(min=0) / d.shape[1], d) + given**2).sqrt()
    else:  # more than there is, by a factor of the channels, as in the reference: the projection takes it back
        may = rows((state.eps - used).clamp(min=0), d) + given * d.shape[1]
    # The windows emptied, then the pattern: zero beside its window.
    d = d.sub_(inside).add_(new.div_(_per_channel(new, state.norm) + 1e-12).mul_(may))
    return _into_ball(d, state.x0, state.lo, state.hi, state.eps, state.norm)


def _per_channel(d: Tensor, norm: str) -> Tensor:
    """Return the norm of every channel, [n, channels, 1, 1]."""
    return length(d.flatten(0, 1), norm).view(*d.shape[:2], 1, 1)


def _into_ball(d: Tensor, x: Tensor, lo: Tensor, hi: Tensor, eps: Tensor, norm: str) -> Tensor:
    """Return x + d in the ball and box; in L2 with d stretched or shortened to length eps first."""
    if norm == "l1":
        return project_l1_in_box(x + d, x, lo, hi, eps * (1 - 1e-6))
    # A hair inside the sphere, so that the projection seldom has a rounding to mend.
    stretched = d / (rows(length(d, "l2"), d) + 1e-12) * rows(eps * (1 - 1e-6), d)
    return project(x + stretched, x, lo, hi, eps, "l2")


def _placed(table: Tensor, size: Tensor, lies: Tensor, corner: Tensor, height: int, width: int) -> Tensor:
    """Return each slot's pattern ``table[size, lies]`` at its corner in an empty image, [slots, 1, height, width]."""
    largest = table.shape[-1]
    down = (torch.arange(height, device=table.device) - corner[:, :1]).clamp(0, largest - 1)
    across = (torch.arange(width, device=table.device) - corner[:, 1:]).clamp(0, largest - 1)
    line = (2 * size + lies)[:, None] * largest + down
    return table.take(line[:, None, :, None] * largest + across[:, None, None, :])


def pattern(side: int, norm: str) -> Tensor:
    """Return the pattern of unit length, one half up, one half down (equation 2), transposed and as it is.

    Its shape is [2, side, side].
    """
    upper = side // 2
    halves = torch.cat([_hill(upper, side, norm), -_hill(side - upper, side, norm)])
    halves = (halves / halves.norm(2 if norm == "l2" else 1)).float()
    return torch.stack([halves.T, halves])


def _hill(height: int, width: int, norm: str) -> Tensor:
    """Return nested rectangles, the k-th (k = 1, 2, ...) around the middle adding 1 / k^2, in L1 1 / k^4; unit norm."""
    down, across = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    ring = torch.maximum(down.abs()[:, None], across.abs()[None, :])
    weights = 1 / torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64) ** (2 if norm == "l2" else 4)
    hill = weights.flip(0).cumsum(0).flip(0)[ring]
    return hill / hill.norm(2 if norm == "l2" else 1).clamp(min=1e-12)
