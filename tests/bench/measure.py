"""Pairs of runs, one after the other in one process, and what their ratios say."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from contenders import Budget, Ours, Peer, Problem, silence
from torch import Tensor

from robusteval.engine.devices import slots_for
from robusteval.engine.direct import search
from robusteval.engine.passes import Passes, frozen
from robusteval.engine.whole import brought_inside
from robusteval.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One run of ours and one of a peer's on the same images: seconds, who is broken [n], our passes.

    ``pure`` is the time that our passes alone would have taken, measured beside.
    """

    ours: float
    theirs: float
    pure: float
    broken: Tensor
    broken_theirs: Tensor
    forward: int
    backward: int

    @property
    def ratio(self) -> float:
        """How many times faster ours was."""
        return self.theirs / self.ours


def pairs(problem: Problem, budget: Budget, ours: Ours, peer: Peer, count: int) -> Iterator[Pair]:
    """Yield ``count`` pairs, seed 0, 1, ...: ours, theirs, ours, theirs."""
    threat = ThreatModel(norm="linf", eps=problem.eps)
    slots = slots_for(torch.device("cpu"), problem.images.shape[-1])
    for seed in range(count):
        begun = time.perf_counter()
        board = search(ours(budget), problem.network, problem.images, problem.labels, threat, seed=seed, slots=slots)
        between = time.perf_counter()
        with silence():
            points = peer(problem, budget, seed)
        ended = time.perf_counter()
        forward, backward = int(board.forward.sum()), int(board.backward.sum())
        yield Pair(
            ours=between - begun,
            theirs=ended - between,
            pure=pure_time(problem, slots, forward, backward),
            broken=board.broken,
            broken_theirs=_broken(problem, threat, points),
            forward=forward,
            backward=backward,
        )


def pure_time(problem: Problem, slots: int, forward: int, backward: int, rounds: int = 7) -> float:
    """Return the seconds of so many forward and backward passes in full batches of ``slots``, and nothing else.

    Every backward pass goes with a forward one. The medians of ``rounds`` batches of either kind are multiplied up.
    """
    batch = problem.images.repeat(-(-slots // len(problem.images)), 1, 1, 1)[:slots]
    labels = problem.labels.repeat(-(-slots // len(problem.labels)))[:slots]

    def forwards() -> None:
        Passes(module=problem.network, batch=slots).logits(batch)

    def both() -> None:
        points = batch.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(problem.network(points), labels, reduction="sum")
        torch.autograd.grad(loss, points)

    with frozen(problem.network):
        alone, with_gradient = _median_time(forwards, rounds), _median_time(both, rounds)
    return (alone * (forward - backward) + with_gradient * backward) / slots


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Return (low, high, coverage) of the median by order statistics: no assumption but independent pairs.

    Between the k-th smallest and the k-th largest of n the median lies with probability 1 - 2 P(Bin(n, 1/2) < k); the
    largest k that keeps the level is taken. Fewer than six values cannot: their range comes with what it covers.
    """
    ordered, n = sorted(values), len(values)

    def coverage(k: int) -> float:
        return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n

    k = max((k for k in range(1, n // 2 + 1) if coverage(k) >= level), default=1)
    return ordered[k - 1], ordered[n - k], max(coverage(k), 0.0)


def middle(values: Sequence[float]) -> float:
    return statistics.median(values)


def _median_time(run: Callable[[], None], rounds: int) -> float:
    run()  # to warm up
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _broken(problem: Problem, threat: ThreatModel, points: Tensor) -> Tensor:
    """Return which of a peer's points break, judged as ours are: brought into the threat, predicted again."""
    inside, _ = brought_inside(points.detach(), problem.images, threat)
    with frozen(problem.network):
        logits = Passes(module=problem.network, batch=256).logits(inside)
    return threat.broken(logits, problem.labels)
