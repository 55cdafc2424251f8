"""Attacks that claim the optimum of a linear model reach it within 1 %, and nobody breaks what cannot be broken."""

import math
from typing import Any

import pytest
import torch

from robusteval.attacks.pgd import PGD
from robusteval.closed_form import Linear, linear_problem
from robusteval.engine.direct import search
from robusteval.threat import ThreatModel

SHAPES = [(1, 1, 2), (1, 2, 5), (3, 8, 8)]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("shape", [(1, 1, 1), *SHAPES])
def test_the_closed_form_is_one(norm: Any, classes: int, shape: tuple[int, int, int]) -> None:
    """The radius against a second derivation: the optimal step, written down, ends on the boundary within the box."""
    problem = linear_problem(norm, shape, classes=classes, radius=0.1)
    w = problem.module.weight.double()
    direction = w.sign() if norm == "linf" else w / w.norm()
    towards = torch.where(problem.labels == 0, -1.0, 1.0).view(-1, 1, 1, 1)
    for factor, broken in ((0.999, False), (1.001, True)):
        points = problem.images.double() + factor * problem.radius * towards * direction
        assert points.min() >= 0
        assert points.max() <= 1
        predictions = Linear(w, problem.module.bias, classes)(points).argmax(1)
        assert bool(((predictions != problem.labels) == broken).all())


@pytest.mark.parametrize(("shape", "classes"), list(zip(SHAPES, (3, 2, 10), strict=True)), ids=str)
def test_the_optimum_is_reached_within_one_per_cent(
    optimum_case: Any, shape: tuple[int, int, int], classes: int
) -> None:
    attack = optimum_case.attack
    if len(attack.stages(optimum_case.norm)) > 1 and shape != SHAPES[2]:
        pytest.skip("each stage of a cascade has cases of its own")
    if getattr(attack, "init", "zero") == "random" and math.prod(shape) < 3 and optimum_case.norm == "l2":
        pytest.skip("in two dimensions a random start may lie right behind the image, where gradient steps hardly turn")
    if shape != SHAPES[2] and not optimum_case.leads:
        pytest.skip("few pixels are tried with each attack's first options")
    classes = max(classes, attack.min_classes())
    problem = linear_problem(optimum_case.norm, shape, classes=classes, radius=0.1, n=6, seed=classes)
    for factor, broken in ((0.99, False), (1.01, True)):
        threat = optimum_case.within(factor * problem.radius)
        board = search(attack, problem.module, problem.images, problem.labels, threat)
        assert board.broken.tolist() == [broken] * 6, factor


@pytest.mark.parametrize("radius", [1e-4, 1e-2, 0.15])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_small_and_large_radii_are_reached_too(norm: Any, radius: float) -> None:
    """Rounding to float32 must not push the optimal point out of a small ball, or the attack would be lost unseen."""
    problem = linear_problem(norm, (1, 16, 16), radius=radius, n=8)
    for factor, broken in ((0.98, False), (1.02, True)):
        threat = ThreatModel(norm=norm, eps=factor * radius)
        board = search(PGD(init="zero"), problem.module, problem.images, problem.labels, threat)
        assert board.broken.tolist() == [broken] * 8, factor


def test_nothing_is_broken_below_the_optimum(case_in_norm: Any) -> None:
    """Of any attack, claimed optimal or not: inside the certified ball no label can change."""
    if case_in_norm.norm not in ("linf", "l2"):
        pytest.skip("no certificate in this norm")
    problem = linear_problem(case_in_norm.norm, (1, 4, 4), classes=10, radius=0.1)
    for stop in ("first", "never"):
        board = search(
            case_in_norm.attack,
            problem.module,
            problem.images,
            problem.labels,
            case_in_norm.within(0.999 * problem.radius),
            stop=stop,
        )
        assert not board.broken.any()


def test_a_random_start_in_l2_ends_where_the_flow_says() -> None:
    """Projected steps of total length 2.5 eps turn a start at right angles by tan(a/2) = exp(-2.5): 1.35 % short.

    So PGD's default step in L2 is twice as long.
    """
    short = 1 - (1 - math.exp(-5)) / (1 + math.exp(-5))
    assert short == pytest.approx(0.0134, abs=1e-4)
    problem = linear_problem("l2", (3, 16, 16), radius=0.1, n=8)
    for factor, broken in ((1 + 0.7 * short, False), (1 + 1.3 * short, True)):
        threat = ThreatModel(norm="l2", eps=factor * problem.radius)
        board = search(PGD(step_size=2.5 * threat.radius / 40), problem.module, problem.images, problem.labels, threat)
        assert board.broken.tolist() == [broken] * 8
