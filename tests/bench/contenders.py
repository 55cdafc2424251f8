"""Who runs: each peer's attack, and ours, as a function of the same images, radius, budget and seed. All in Linf."""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robusteval.attacks.apgd import APGD
from robusteval.attacks.autoattack import AutoAttack
from robusteval.attacks.base import Attack
from robusteval.attacks.fab import FAB
from robusteval.attacks.pgd import PGD
from robusteval.attacks.reference import library
from robusteval.attacks.reference.autoattack import Part, UpstreamPart, rescale

BATCH = 250  # of the peers, as AutoAttack's default


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Iterations of a gradient attack and queries of Square."""

    steps: int
    queries: int


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What both sides get: a network in eval mode, images [n, C, H, W], labels [n], the radius in Linf."""

    network: nn.Module
    images: Tensor
    labels: Tensor
    eps: float


Peer = Callable[[Problem, Budget, int], Tensor]
Ours = Callable[[Budget, float], Attack]


def step(eps: float) -> float:
    """Return the step of PGD on both sides: a quarter of the radius, as 2/255 in a ball of 8/255."""
    return eps / 4


def torchattacks_pgd(problem: Problem, budget: Budget, seed: int) -> Tensor:
    torch.manual_seed(seed)
    attack = library.load("torchattacks").PGD(
        problem.network, eps=problem.eps, alpha=step(problem.eps), steps=budget.steps, random_start=True
    )
    return _in_batches(problem, attack)


def foolbox_pgd(problem: Problem, budget: Budget, seed: int) -> Tensor:
    torch.manual_seed(seed)
    foolbox = library.load("foolbox")
    model = foolbox.PyTorchModel(problem.network, bounds=(0, 1), device=problem.images.device)
    attack = foolbox.attacks.LinfPGD(steps=budget.steps, abs_stepsize=step(problem.eps), random_start=True)
    return _in_batches(problem, lambda x, y: attack(model, x, y, epsilons=problem.eps)[1])


def art_pgd(problem: Problem, budget: Budget, seed: int) -> Tensor:
    import numpy as np

    torch.manual_seed(seed)
    np.random.seed(seed)
    estimators, evasion = library.load("art.estimators.classification"), library.load("art.attacks.evasion")
    estimator = estimators.PyTorchClassifier(
        problem.network,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(problem.images.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="gpu" if problem.images.is_cuda else "cpu",
    )
    attack = evasion.ProjectedGradientDescent(
        estimator,
        norm=math.inf,
        eps=problem.eps,
        eps_step=step(problem.eps),
        max_iter=budget.steps,
        num_random_init=1,
        batch_size=BATCH,
        verbose=False,
    )
    points = attack.generate(problem.images.cpu().numpy(), problem.labels.cpu().numpy())
    return torch.from_numpy(points).to(problem.images.device)


def upstream(part: Part) -> Peer:
    """Return one part of AutoAttack as pyautoattack's standard version sets it up."""

    def run(problem: Problem, budget: Budget, seed: int) -> Tensor:
        attack = UpstreamPart(
            part=part, version="standard", steps=budget.steps, queries=budget.queries, batch_size=BATCH
        )
        return attack.run(problem.network, problem.images, problem.labels, norm="linf", eps=problem.eps, seed=seed)

    return run


def upstream_whole(problem: Problem, budget: Budget, seed: int) -> Tensor:
    """Run pyautoattack's whole standard evaluation, by its own loop over its own parts."""
    whole: Any = library.load("pyautoattack.autoattack").AutoAttack(
        problem.network, eps=problem.eps, seed=seed, device=problem.images.device
    )
    for attack in (whole.apgd, whole.apgd_targeted):
        rescale(attack, budget.steps)
    whole.fab.n_iter = budget.steps
    whole.square.n_queries = budget.queries
    return whole.run_standard_evaluation(problem.images, problem.labels, batch_size=BATCH)[0]


def _in_batches(problem: Problem, attack: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    return torch.cat([attack(x, y) for x, y in library.batches(problem.images, problem.labels, BATCH)])


@contextlib.contextmanager
def silence() -> Any:
    """Keep every library's prints, warnings and log lines away while the block runs."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


OURS: dict[str, Ours] = {
    "pgd": lambda budget, eps: PGD(steps=budget.steps, step_size=step(eps)),
    "apgd-ce": lambda budget, _: APGD(steps=budget.steps),
    "fab-t": lambda budget, _: FAB(steps=budget.steps),
    "autoattack": lambda budget, _: AutoAttack(steps=budget.steps, queries=budget.queries),
}
PEERS: dict[str, Peer] = {
    "torchattacks": torchattacks_pgd,
    "foolbox": foolbox_pgd,
    "ART": art_pgd,
    "pyautoattack apgd-ce": upstream("apgd-ce"),
    "pyautoattack fab-t": upstream("fab-t"),
    "pyautoattack": upstream_whole,
}
