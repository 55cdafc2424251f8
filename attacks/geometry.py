"""Balls and steepest directions of the norms, row by row: points are [slots, ...]."""

import torch
from torch import Tensor

from robusteval.attacks.asking import may_ask
from robusteval.attacks.base import rows

# A radius arrives rounded to float32, which may be longer than what the engine measures against.
_INWARD = 1 - 1e-7
_SWEEPS = 100  # of a root search that needs about four
_BETWEEN_QUESTIONS = 6  # sweeps, where asking is dear: a sweep more costs less than a question, ninety do not
_CACHED = 131072  # numbers of each tensor that are worked on at a time
_TINY = torch.finfo(torch.float32).tiny


def length(d: Tensor, norm: str) -> Tensor:
    """Return the norm (``linf``, ``l2`` or ``l1``) of each row, [slots]; sums are taken in float64."""
    flat = d.flatten(1)
    if norm == "linf":
        return flat.abs().amax(1)
    # A single long row would be split among threads, and its last bits would differ from those beside other rows.
    several = flat.expand(2, -1) if len(flat) == 1 else flat
    total = torch.linalg.vector_norm(several, ord=2 if norm == "l2" else 1, dim=1, dtype=torch.float64)
    return total[: len(flat)].to(d.dtype)


def total(values: Tensor) -> Tensor:
    """Return the sum of each row, [slots], with bits that do not depend on the row's company."""
    flat = values.flatten(1)
    several = flat.expand(2, -1) if len(flat) == 1 else flat
    return several.sum(1)[: len(flat)]


def project(
    points: Tensor, x: Tensor, lo: Tensor, hi: Tensor, eps: Tensor, norm: str, *, reuse: bool = False
) -> Tensor:
    """Bring points into the threat model around ``x``: inside in float64 arithmetic, not just nearly.

    Linf and unbounded: exact, since lo and hi hold the ball. L2: scaled to the sphere, then clamped to the box, which
    only shortens. L1: soft threshold (Duchi et al. 2008, https://doi.org/10.1145/1390156.1390191), then clamped. With
    ``reuse`` the memory of ``points`` may serve for the result.
    """
    if norm in ("linf", "unbounded"):
        return points.clamp_(lo, hi) if reuse else points.clamp(lo, hi)
    d, radius = points - x, eps * _INWARD
    if norm == "l2":
        d = d * rows((radius / length(d, "l2").clamp(min=1e-30)).clamp(max=1), d)
    elif norm == "l1":
        d = _onto_l1(d, radius)
    else:
        raise ValueError(f"no projection for norm {norm!r}")
    return _added(x, d, eps.double() * _INWARD, norm).clamp(lo, hi)


def project_l1_in_box(points: Tensor, x: Tensor, lo: Tensor, hi: Tensor, eps: Tensor) -> Tensor:
    """Return the nearest point of the L1 ball around ``x`` and the finite box together: inside in float64 arithmetic.

    Each perturbation keeps its sign and gets the size min(room, (|d| - t)+), the room being what the box leaves, with
    the least t >= 0 for which the sizes add up to at most eps (Croce & Hein 2021, https://arxiv.org/abs/2103.01208,
    proposition 2.1). Their sum falls with t and is linear by pieces: Newton's method, kept within a bracket.
    """
    d = points - x
    way, size = d.sign(), d.abs().flatten(1)
    # hi - x where the way is up, x - lo where it is down: the larger one of the two with the sign of the way.
    room = torch.maximum((hi - x).mul_(way), (lo - x).mul_(way)).flatten(1)
    arguments = (size, room, eps * _INWARD)
    if may_ask():  # a few rows at a time stay in the processor's cache, and need their own worst row's sweeps only
        parts = zip(*(tensor.split(max(_CACHED // size.shape[1], 2)) for tensor in arguments), strict=True)
        t = torch.cat([_threshold(*part) for part in parts])
    else:
        t = _threshold(*arguments)
    kept = size.sub_(t[:, None]).clamp_(min=0).minimum(room).view_as(d).mul_(way)
    return _added(x, kept, eps.double() * _INWARD, "l1").clamp_(lo, hi)


def _threshold(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """Return the least t >= 0 [n] with sum(min(room, (size - t)+)) <= radius; ``size`` and ``room`` are [n, k]."""
    t = torch.zeros_like(radius)
    low, high = t, size.amax(1)
    # Written in place, and what lies between is asked in numbers, 1 or 0: as truth values torch takes several times as
    # long, and so does fresh memory for each sweep.
    rest, kept, between, zero = (
        torch.empty_like(size),
        torch.empty_like(size),
        torch.empty_like(size),
        size.new_zeros(()),
    )
    for sweep in range(_SWEEPS):
        torch.sub(size, t[:, None], out=rest)
        excess = total(torch.clamp(rest, min=0, out=kept).minimum(room)) - radius
        low, high = torch.where(excess > 0, t, low), torch.where(excess > 0, high, t)
        slope = total(torch.gt(rest, zero, out=kept).mul_(torch.lt(rest, room, out=between)))
        newton = t + excess / slope
        following = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
        # A row at its end stays there, so that it does not matter how long its neighbours take. 1e-6: a float32 sum of
        # thousands of terms is not more exact.
        ended = ((t == 0) & (excess <= 0)) | (excess.abs() <= 1e-6 * radius) | (high - low <= 1e-7 * high)
        if (may_ask() or sweep % _BETWEEN_QUESTIONS == _BETWEEN_QUESTIONS - 1) and ended.all():
            break
        t = torch.where(ended, t, following)
    return t


def sparse_sign(gradient: Tensor, density: Tensor) -> Tensor:
    """Return the signs of each row's largest entries, a share ``density`` [slots] of all, over their number."""
    size = gradient.abs().flatten(1)
    n = size.shape[1]
    smaller = ((1 - density) * n).clamp(0, n - 1).long()
    least = size.sort(1).values.gather(1, smaller[:, None])
    signs = gradient.flatten(1).sign() * (size >= least)
    return (signs / signs.abs().sum(1, keepdim=True).clamp(min=1)).view_as(gradient)


def _added(x: Tensor, d: Tensor, radius: Tensor, norm: str) -> Tensor:
    """Return x + d within ``radius`` (float64) of ``x``.

    Where rounding x + d to the nearest would leave the ball, d is shortened and each value rounded towards x instead.
    """
    near = x + d
    beyond = length(near.double() - x.double(), norm) > radius
    if not may_ask():
        return torch.where(rows(beyond, near), _rounded_inward(x, d, radius, norm), near)
    outside = beyond.nonzero()[:, 0]
    if len(outside):
        near[outside] = _rounded_inward(x[outside], d[outside], radius[outside], norm)
    return near


def _rounded_inward(x: Tensor, d: Tensor, radius: Tensor, norm: str) -> Tensor:
    x, d = x.double(), d.double()
    d = d * rows((radius * (1 - 1e-12) / length(d, norm).clamp(min=1e-30)).clamp(max=1), d)
    inward = (x + d).float()
    return torch.where((inward.double() - x).abs() > d.abs(), inward.nextafter(x.float()), inward)


def _onto_l1(d: Tensor, radius: Tensor) -> Tensor:
    flat = d.flatten(1)
    size = flat.abs()
    ordered = size.sort(1, descending=True).values
    excess = ordered.cumsum(1) - radius[:, None]
    rank = torch.arange(1, flat.shape[1] + 1, device=d.device)
    support = (ordered * rank > excess).sum(1).clamp(min=1)
    threshold = (excess.gather(1, support[:, None] - 1) / support[:, None]).clamp(min=0)
    shrunk = flat.sign() * (size - threshold).clamp(min=0)
    inside = length(d, "l1")[:, None] <= radius[:, None]
    return torch.where(inside, flat, shrunk).view_as(d)


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """Return the direction of unit norm along which a linear loss rises most; zero where the gradient is zero."""
    if norm in ("linf", "unbounded"):
        return gradient.sign()
    if norm == "l2":
        # Scaled first: the squares of a confident network's gradients underflow.
        scaled = gradient / rows(length(gradient, "linf").clamp(min=_TINY), gradient)
        return scaled / rows(length(scaled, "l2").clamp(min=_TINY), gradient)
    raise ValueError(f"no steepest direction for norm {norm!r}")
