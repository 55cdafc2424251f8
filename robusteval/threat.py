"""The threat model: which images count as the same picture, and when one counts as broken."""

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robusteval import region
from robusteval.attacks import geometry

Norm = Literal["linf", "l2", "l1", "unbounded"]
Goal = Literal["top1", "top5"]


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """A ball of radius ``eps`` in ``norm`` around the image, within the box [0, 1].

    Several radii make a curve: they are kept in ascending order, ``balls`` gives each its own threat model, and what is
    asked of the whole is answered for the largest. One radius in a list is that radius. ``unbounded`` is the box alone.
    ``goal`` says when an image counts as broken: its label is not the prediction
    (``top1``) or not among the five most likely classes (``top5``). ``region`` confines an attack to some pixels
    (see :mod:`robusteval.region`; None: to none): all others stay as they are, bit for bit.
    """

    norm: Norm = "linf"
    eps: float | tuple[float, ...] | None = 0.3
    goal: Goal = "top1"
    region: str | None = None

    def __post_init__(self) -> None:
        if self.region is not None and (wrong := region.fault(self.region)) is not None:
            raise ValueError(wrong)
        if isinstance(self.eps, tuple):
            object.__setattr__(self, "eps", _ascending(self.eps))
        if self.norm == "unbounded":
            if self.eps is not None:
                raise ValueError(
                    f"norm=unbounded takes no radius, but eps={_written(self.eps)} came; name a norm too, such as "
                    "threat.norm=linf"
                )
        elif self.eps is None or not all(0 <= eps < float("inf") for eps in self.radii):
            raise ValueError(
                f"norm={self.norm} needs a radius eps >= 0, got {_written(self.eps)}; use threat=unbounded for the box "
                "alone"
            )

    @property
    def radii(self) -> tuple[float, ...]:
        """All radii, ascending: one infinite where unbounded."""
        if isinstance(self.eps, tuple):
            return self.eps
        return (float("inf") if self.eps is None else self.eps,)

    @property
    def radius(self) -> float:
        """The (largest) radius as a number: infinite where unbounded."""
        return self.radii[-1]

    def balls(self) -> "tuple[ThreatModel, ...]":
        """Return one threat model for each radius, ascending."""
        if not isinstance(self.eps, tuple):
            return (self,)
        return tuple(dataclasses.replace(self, eps=eps) for eps in self.eps)

    def free(self, x: Tensor) -> Tensor | None:
        """Return which pixels of images [n, C, H, W] may be changed, [1, H, W] bool; None where all of them."""
        return None if self.region is None else region.mask(self.region, x.shape[-2], x.shape[-1], x.device)

    def confine(self, values: Tensor, outside: Tensor | float) -> Tensor:
        """Return ``values`` [..., C, H, W] with ``outside`` in place of those out of the region."""
        free = self.free(values)
        return values if free is None else torch.where(free, values, outside)

    def box(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 (lo, hi) of shape ``x``: how far a picture may go where no ball holds it."""
        return self.confine(torch.zeros_like(x), x), self.confine(torch.ones_like(x), x)

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 (lo, hi) of shape ``x``: the box, the region, and for Linf the ball, rounded inward.

        Rounded so that any point between them is inside in float64 arithmetic, not just nearly.
        """
        if self.norm != "linf":
            return self.box(x)
        exact = x.double()
        lo, hi = (exact - self.radius).clamp(min=0).float(), (exact + self.radius).clamp(max=1).float()
        up, down = torch.full_like(x, torch.inf), torch.full_like(x, -torch.inf)
        lo = torch.where(exact - lo.double() > self.radius, lo.nextafter(up), lo)
        hi = torch.where(hi.double() - exact > self.radius, hi.nextafter(down), hi)
        return self.confine(lo, x), self.confine(hi, x)

    def project(self, points: Tensor, x: Tensor) -> Tensor:
        """Return the points [n, ...] brought into the region, the ball and the box around ``x``."""
        lo, hi = self.bounds(x)
        points = self.confine(points, x)  # first, or what lies outside would use up the ball
        eps = torch.full((len(x),), self.radius, dtype=x.dtype, device=x.device)
        return geometry.project(points, x, lo, hi, eps, self.norm)

    def distance(self, points: Tensor, x: Tensor) -> Tensor:
        """Return the distance [n] of points from ``x`` in float64: in the norm of the ball, Linf where unbounded."""
        return geometry.length(points.double() - x.double(), "linf" if self.norm == "unbounded" else self.norm)

    def in_box(self, points: Tensor) -> Tensor:
        """Return whether each point [n] is finite and in the box."""
        flat = points.flatten(1)
        return (flat.amin(1) >= 0) & (flat.amax(1) <= 1)  # NaN is neither

    def admits(self, points: Tensor, x: Tensor) -> Tensor:
        """Return whether each point [n] is finite, in the box, and outside the region the image ``x`` itself."""
        free = self.free(x)
        inside = self.in_box(points)
        return inside if free is None else inside & ((points == x) | free).flatten(1).all(1)

    def within(self, points: Tensor, x: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
        """Return what ``contains`` does, sooner, by the bounds [n, ...] of ``x``: of Linf they are the whole ball."""
        # By the least room left: comparing value by value takes torch several times as long. NaN is no room.
        between = ((points - lo).flatten(1).amin(1) >= 0) & ((hi - points).flatten(1).amin(1) >= 0)
        return between if self.bounds_decide else between & (self.distance(points, x) <= self.radius)

    @property
    def bounds_decide(self) -> bool:
        """Whether a point between its bounds is inside, whatever its distance."""
        return self.norm in ("linf", "unbounded")

    def contains(self, points: Tensor, x: Tensor) -> Tensor:
        """Return whether each point [n] is finite, in box, region and ball, measured in float64 without slack."""
        return self.admits(points, x) & (self.distance(points, x) <= self.radius)

    def broken(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return whether each row of logits [n, classes] misses the goal.

        Logits that are not finite count as broken: a network that answers NaN is not right.
        """
        if self.goal == "top1":
            missed = logits.argmax(1) != y
        else:
            missed = (logits.topk(min(5, logits.shape[1]), 1).indices != y[:, None]).all(1)
        # A NaN is not smaller than infinity either. One by one would take torch three times as long.
        return missed | ~(logits.abs().amax(1) < torch.inf)


def _ascending(radii: tuple[float, ...]) -> float | tuple[float, ...]:
    """Return radii in ascending order, a single one as a number, so that one set of balls has one form and one key."""
    if not radii:
        raise ValueError("eps=[] names no radius; give one or several, as in threat.eps=[0.1,0.2]")
    for smaller, larger in itertools.pairwise(ordered := tuple(sorted(radii))):
        if smaller == larger:
            raise ValueError(f"eps={_written(radii)} names {smaller:g} twice; give each radius once")
    return ordered[0] if len(ordered) == 1 else ordered


def _written(eps: float | tuple[float, ...] | None) -> str:
    return str(list(eps) if isinstance(eps, tuple) else eps)
