"""Attacks of other libraries: run on a whole chunk, counted from outside, brought into the threat.

What they return is a proposal like any other: whether it breaks an image is for the verifier to say.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robusteval.attacks.base import WholeBatch, rows
from robusteval.engine.memory import ran_out
from robusteval.engine.passes import NO_GRADIENT, RAISED_BY_NETWORKS, failed, padded
from robusteval.errors import UserError
from robusteval.threat import ThreatModel

# Beyond the threat by no more than this is rounding: the peers leave balls by about 1e-7.
ROUNDING = 1e-5


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Points [n, C, H, W] inside the threat where they are finite, and what they cost.

    ``forward`` and ``backward`` [n] are passes. Another library does not say which sample a row belongs to, so the rows
    of all calls are counted and shared out evenly, the remainder to the first samples: the sums are exact.
    ``outside`` counts the points that lay beyond the threat by more than rounding.
    """

    points: Tensor
    forward: Tensor
    backward: Tensor
    outside: int


class Counted(nn.Module):
    """The network as another library gets it: counts the rows that go through, forward and back.

    Passes are padded as everywhere, so that no network meets a batch of one, and ``beat`` is called at each, which may
    raise to interrupt. Of a ``threat`` with a region the gradient outside it is zero, as our own attacks get it.
    """

    def __init__(self, network: nn.Module, beat: Callable[[], None], threat: ThreatModel | None = None) -> None:
        super().__init__()
        self.network, self.beat, self.threat = network, beat, threat
        self.forward_rows = self.backward_rows = 0

    def forward(self, points: Tensor) -> Tensor:
        self.beat()
        wanted = torch.is_grad_enabled() and points.requires_grad
        if wanted and self.threat is not None:
            points = self.threat.confine(points, points.detach())
        try:
            logits = self.network(padded(points.float()))[: len(points)].float()
        except RAISED_BY_NETWORKS as error:
            raise _complaint(error) from error
        self.forward_rows += len(points)
        if wanted:
            if not logits.requires_grad:
                raise UserError(NO_GRADIENT)
            logits.register_hook(self._came_back)
        return logits

    def _came_back(self, gradient: Tensor) -> None:
        self.backward_rows += len(gradient)


def propose(
    attack: WholeBatch,
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    beat: Callable[[], None],
) -> Proposal:
    """Run another library's attack on images ``x`` [n, C, H, W] with labels ``y`` [n].

    ``seed`` (0 to 2^31 - 1) is given to it and to the global generators of Python, numpy and torch, which come back as
    they were. Raises UserError where it fails or returns anything but n images.
    """
    counted = Counted(network, beat, threat).eval()
    with seeded(seed, x.device), torch.enable_grad():
        try:
            points = attack.run(counted, x.clone(), y.clone(), norm=threat.norm, eps=threat.radius, seed=seed)
        except RAISED_BY_NETWORKS as error:
            if ran_out(error):
                raise _complaint(error) from error
            line = (str(error).strip().splitlines() or [""])[0][:200]
            raise UserError(
                f"attack={attack.label()} raised {type(error).__name__}: {line}; the attack is {attack.library()}'s, "
                "so look at its options (ROBUSTEVAL_DEBUG=1 shows all of it)"
            ) from error
    if not isinstance(points, Tensor) or points.shape != x.shape:
        came = list(points.shape) if isinstance(points, Tensor) else type(points).__name__
        raise UserError(f"attack={attack.label()} returned {came} where images of shape {list(x.shape)} are due")
    points, outside = brought_inside(points.detach().to(x), x, threat)
    return Proposal(
        points=points,
        forward=_shared(counted.forward_rows, x),
        backward=_shared(counted.backward_rows, x),
        outside=outside if attack.bounded() else 0,
    )


def brought_inside(points: Tensor, x: Tensor, threat: ThreatModel) -> tuple[Tensor, int]:
    """Return the points [n, ...] projected where they are not inside, and how many were out by more than rounding.

    A point that is not finite stays so, counts as out, and can be no adversarial. What lies outside a region is set
    back first and does not count: no other library knows of regions.
    """
    points = threat.confine(points, x)
    flat = points.flatten(1)
    excess = torch.stack([threat.distance(points, x) - threat.radius, flat.amax(1) - 1.0, -flat.amin(1)]).amax(0)
    near = excess <= ROUNDING
    inside = threat.contains(points, x)
    return torch.where(rows(inside, points), points, threat.project(points, x)), int((~near).sum())


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators that other libraries draw from, and bring them back to where they were."""
    plain, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(arrays)


def _complaint(error: BaseException) -> UserError:
    """Return the error to raise instead of the network's. Slots do not help here: these attacks take whole chunks."""
    if ran_out(error):
        return UserError(
            "the device has not enough memory for a whole chunk, which attacks of other libraries take at once; set "
            "engine.chunk to fewer images"
        )
    return UserError(failed("forward", error))


def _shared(total: int, x: Tensor) -> Tensor:
    """Return ``total`` passes shared out evenly among the samples [n]."""
    each, rest = divmod(total, len(x))
    return each + (torch.arange(len(x), device=x.device) < rest).long()
