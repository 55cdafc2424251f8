"""Pairs of runs, one after the other in one process, and what their ratios say.

Seconds are those of the processor: on one thread they are the clock's, less what other programs took meanwhile. On a
GPU they are the clock's.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from contenders import Budget, Ours, Peer, Problem, silence
from torch import Tensor

from robusteval.attacks.base import Attack
from robusteval.engine import oracle, selftest
from robusteval.engine.board import Board
from robusteval.engine.devices import path_for, slots_for
from robusteval.engine.passes import QUANTUM, Passes, frozen, physical
from robusteval.engine.recording import recorder_for
from robusteval.engine.search import Chunk, Path, Searcher
from robusteval.engine.stages import Mode, Precision, stages_of
from robusteval.engine.whole import brought_inside
from robusteval.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One run of ours and one of a peer's on the same images: seconds, who is right without an attack [n], who is wrong
    in the end, our passes.

    ``pure`` is the time that our passes alone would have taken, measured beside.
    """

    ours: float
    theirs: float
    pure: float
    clean: Tensor
    broken: Tensor
    broken_theirs: Tensor
    forward: int
    backward: int

    @property
    def ratio(self) -> float:
        """How many times faster ours was."""
        return self.theirs / self.ours


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Our side as an evaluation sets it up: the search's copies of the network in their forms, and the slots."""

    problem: Problem
    oracles: Mapping[Precision, Passes]
    slots: int
    quantum: int
    path: Path

    @classmethod
    def of(cls, problem: Problem, mode: Mode) -> "Engine":
        weights = sum(part.numel() for part in problem.network.parameters())
        device = problem.images.device
        slots, path = slots_for(device, problem.images.shape[-1], weights), path_for(device, "auto")
        with frozen(problem.network):
            given = Passes(module=problem.network, batch=slots)
            choice = oracle.choose(given, problem.images[:32], problem.labels[:32], "rule", gradients=True)
            searched = Passes(module=oracle.build(problem.network, choice.form, "float32"), batch=slots)
            precision: Precision = "float32" if mode == "exact" else "bfloat16"
            lowered = (
                oracle.lowered(given, choice.form, problem.images[:32], gradients=True) if mode != "exact" else None
            )
            copied = lowered or searched.module
            tried = () if device.type != "cpu" else (given, searched)
            quantum = max((selftest.quantum(each, problem.images[:32]) for each in tried), default=QUANTUM)
        fine = quantum if mode == "exact" else QUANTUM
        asked = Passes(module=copied, batch=slots, quantum=fine)
        return cls(problem=problem, oracles={precision: asked}, slots=slots, quantum=quantum, path=path)

    def run(self, attack: Attack, threat: ThreatModel, mode: Mode, seed: int) -> Board:
        """Return what came of all stages, each on the images that still stand."""
        *_, (_, board) = self.stages(attack, threat, mode, seed)
        return board

    def stages(self, attack: Attack, threat: ThreatModel, mode: Mode, seed: int) -> Iterator[tuple[str, Board]]:
        """Yield each stage's name and what came of it and those before, as one board that goes on to change."""
        x, y = self.problem.images, self.problem.labels
        with frozen(self.problem.network):
            verifier = Passes(module=self.problem.network, batch=self.slots, quantum=self.quantum)
            searcher = Searcher(
                oracles=self.oracles,
                verifier=verifier,
                seed=seed,
                slots=self.slots,
                stop="first",
                tick=lambda _: None,
                path=self.path,
                recorder=recorder_for(x.device),
            )
            logits = verifier.logits(x)
            chunk = Chunk(images=x, labels=y, logits=logits, ids=np.arange(len(x)))
            first, *others = stages_of(attack, threat, mode)
            board = searcher.run(first, chunk, (~threat.broken(logits, y)).nonzero()[:, 0].tolist())
            yield first.name, board
            for stage in others:
                standing = (~board.broken).nonzero()[:, 0].tolist()
                board.absorb(searcher.run(stage, chunk, standing), standing)
                yield stage.name, board

    def right(self) -> Tensor:
        """Return which images [n] the network gets right."""
        with frozen(self.problem.network):
            logits = Passes(module=self.problem.network, batch=self.slots).logits(self.problem.images)
        return (logits.argmax(1) == self.problem.labels).cpu()

    def pure_time(self, forward: int, backward: int, rounds: int = 7) -> float:
        """Return the seconds of so many passes in full batches of the slots (of all images), and of nothing else.

        Every backward pass goes with a forward one. The medians of ``rounds`` batches of either kind are multiplied up.
        """
        x, y = self.problem.images, self.problem.labels
        size = min(self.slots, physical(len(x)))
        batch, labels = (rows.repeat(-(-size // len(rows)), *[1] * (rows.ndim - 1))[:size] for rows in (x, y))
        (passes,) = self.oracles.values()

        def both() -> None:
            points = batch.clone().requires_grad_()
            loss = torch.nn.functional.cross_entropy(passes.module(points), labels, reduction="sum")
            torch.autograd.grad(loss, points)

        with frozen(self.problem.network):
            alone, with_gradient = (_median_time(one, rounds, x.device) for one in (lambda: passes.logits(batch), both))
        return (alone * (forward - backward) + with_gradient * backward) / size


def pairs(problem: Problem, budget: Budget, ours: Ours, peer: Peer, count: int, mode: Mode) -> Iterator[Pair]:
    """Yield ``count`` pairs, seed 0, 1, ...: ours, theirs, ours, theirs."""
    threat = ThreatModel(norm="linf", eps=problem.eps)
    engine, device = Engine.of(problem, mode), problem.images.device
    for seed in range(count):
        begun = clock(device)
        board = engine.run(ours(budget, problem.eps), threat, mode, seed)
        between = clock(device)
        with silence():
            points = peer(problem, budget, seed)
        ended = clock(device)
        forward, backward = int(board.forward.sum()) + len(problem.images), int(board.backward.sum())  # and the clean
        yield Pair(
            ours=between - begun,
            theirs=ended - between,
            pure=engine.pure_time(forward, backward),
            clean=engine.right(),
            broken=board.broken.cpu(),
            broken_theirs=_broken(problem, threat, points).cpu(),
            forward=forward,
            backward=backward,
        )


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


def _median_time(run: Callable[[], object], rounds: int, device: torch.device) -> float:
    run()  # to warm up
    times = []
    for _ in range(rounds):
        begun = clock(device)
        run()
        times.append(clock(device) - begun)
    return statistics.median(times)


def clock(device: torch.device) -> float:
    """Return the time in seconds, since whenever: of the processor, or by the clock once a GPU has nothing to do."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _broken(problem: Problem, threat: ThreatModel, points: Tensor) -> Tensor:
    """Return which images are wrong or broken by a peer, judged as ours are: in the threat, predicted again."""
    inside, _ = brought_inside(points.detach(), problem.images, threat)
    with frozen(problem.network):
        clean, attacked = (Passes(module=problem.network, batch=256).logits(x) for x in (problem.images, inside))
    return threat.broken(clean, problem.labels) | threat.broken(attacked, problem.labels)
