"""The shortest way onto a hyperplane within a box, in each norm."""

import torch
from torch import Tensor

from robusteval.attacks.asking import may_ask
from robusteval.attacks.geometry import total

_SWEEPS = 50  # of a Newton's method that needs about ten
_CACHED = 131072  # numbers of each tensor that are worked on at a time


def onto_hyperplane(x: Tensor, w: Tensor, gap: Tensor, lo: Tensor, hi: Tensor, norm: str) -> Tensor:
    """Return the shortest d [n, k] with <w, d> = -gap and lo <= x + d <= hi; the farthest one can get if none has.

    ``x``, ``w``, ``lo``, ``hi`` are [n, k], ``gap`` [n] is <w, x> - b of the hyperplane <w, z> = b. Each value moves
    against the sign of w or of -w, by a size of at most its room in the box, until the sizes weighted by |w| make up
    |gap|. Linf: all sizes equal some r where there is room. L2: in proportion to |w|, m |w|. L1: the entries of largest
    |w| first, each by all its room (Croce & Hein 2020, https://arxiv.org/abs/1907.02044, section 3).
    """
    if may_ask():  # a few rows at a time stay in the processor's cache, and need the sweeps of their own worst row only
        size = max(_CACHED // x.shape[1], 2)
        parts = zip(*(tensor.split(size) for tensor in (x, w, gap, lo, hi)), strict=True)
        return torch.cat([_onto(*part, norm) for part in parts])
    return _onto(x, w, gap, lo, hi, norm)


def _onto(x: Tensor, w: Tensor, gap: Tensor, lo: Tensor, hi: Tensor, norm: str) -> Tensor:
    way = w.sign().mul_(torch.where(gap < 0, -1.0, 1.0)[:, None])
    gain = w.abs()
    # x - lo where the way is up, hi - x where it is down: the larger one of the two with the sign of the way.
    room = torch.maximum((x - lo).mul_(way), (x - hi).mul_(way))
    size = _greedy(gain, room, gap.abs()) if norm == "l1" else _level(gain, room, gap.abs(), norm)
    return way.neg_().mul_(size)


def _level(gain: Tensor, room: Tensor, due: Tensor, norm: str) -> Tensor:
    """Return the sizes min(room, r) or min(room, r gain) that are worth ``due`` in the end.

    The worth is a concave function of r, linear by pieces, so that Newton's method from r = 0 never goes too far.
    """
    linf = norm == "linf"
    growth = gain if linf else gain * gain
    # The step from 0, where every entry with room is free, and nothing is worth anything yet.
    # Whether there is room is asked in numbers, 1 or 0: as truth values torch takes eight times as long.
    free = torch.gt(room, room.new_zeros(()), out=torch.empty_like(gain))
    r = (due / total(growth * free)).nan_to_num_(0, 0, 0)
    # Written in place: fresh memory for each of the many sweeps would cost more than the sweeps.
    size, worth = torch.empty_like(gain), torch.empty_like(gain)
    for _ in range(_SWEEPS):
        reach = r[:, None].expand_as(gain) if linf else torch.mul(gain, r[:, None], out=size)
        slope = total(torch.mul(growth, torch.gt(room, reach, out=free), out=worth))
        torch.minimum(room, reach, out=size)
        step = ((due - total(torch.mul(gain, size, out=worth))) / slope).nan_to_num_(0, 0, 0)
        # A row whose step is rounding alone stays where it is, so that its neighbours' need for sweeps is no matter.
        step.mul_(step > 1e-7 * r)
        if may_ask() and not step.any():
            break
        r = r + step
    return size


def _greedy(gain: Tensor, room: Tensor, due: Tensor) -> Tensor:
    """Return the sizes that fill the room of the entries of largest gain first, the last of them in part."""
    order = gain.argsort(dim=1, descending=True, stable=True)
    gains, rooms = gain.gather(1, order), room.gather(1, order)
    worth = (gains * rooms).cumsum(1, dtype=torch.float64)
    before = worth - gains * rooms
    sizes = ((due[:, None] - before) / gains).clamp(min=0).nan_to_num(nan=0).minimum(rooms).to(gain.dtype)
    return torch.zeros_like(gain).scatter(1, order, sizes)
