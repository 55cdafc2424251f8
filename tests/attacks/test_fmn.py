"""FMN: its distances against closed forms, its curve against PGD at fixed radii, its radius against algorithm 1."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from robusteval.attacks.base import Answer
from robusteval.attacks.fmn import FMN
from robusteval.attacks.pgd import PGD
from robusteval.closed_form import LinearProblem, linear_problem
from robusteval.engine.direct import search
from robusteval.threat import ThreatModel


def shortest_l1(problem: LinearProblem) -> Tensor:
    """The least L1 length that crosses the boundary within the box, image by image, by a linear programme."""
    w = problem.module.weight.flatten().double()
    found = []
    for image, label in zip(problem.images.flatten(1).double(), problem.labels, strict=True):
        logits = problem.module(image[None].float())[0]
        gap = float((logits[label] - logits[1 - label]).abs())
        towards = -w if label == 0 else w
        # d = p - q with p, q >= 0, p up to 1 - x, q up to x
        bounds = [*((0, float(1 - v)) for v in image), *((0, float(v)) for v in image)]
        way = torch.cat([towards, -towards])
        answer = linprog(torch.ones(len(way)).numpy(), -way[None].numpy(), [-gap], bounds=bounds)
        assert answer.success
        found.append(answer.fun)
    return torch.tensor(found)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 2, 5), (3, 8, 8), (1, 16, 16)])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_distances_on_linear_models_are_within_one_per_cent(
    norm: Any, shape: tuple[int, int, int], classes: int
) -> None:
    problem = linear_problem("linf" if norm == "linf" else "l2", shape, classes=classes, radius=0.1, n=6)
    due = shortest_l1(problem) if norm == "l1" else torch.full((6,), problem.radius, dtype=torch.float64)
    attack = FMN(steps=100, targeted=classes > 2, n_targets=1)
    board = search(attack, problem.module, problem.images, problem.labels, ThreatModel(norm=norm, eps=0.01))
    assert board.distance is not None
    ratio = board.distance / due
    assert float(ratio.min()) >= 1 - 1e-4
    assert float(ratio.max()) <= 1.01
    assert not board.broken.any(), "the radius is far smaller than any of these distances"


def test_one_run_serves_every_radius(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    network, images, labels = digits
    boards = [
        search(FMN(steps=15, n_targets=2), network, images, labels, ThreatModel(norm="linf", eps=eps))
        for eps in (0.0, 0.2, 0.34)
    ]
    for board, eps in zip(boards, (0.0, 0.2, 0.34), strict=True):
        assert torch.equal(board.point, boards[0].point)
        assert board.distance is not None
        assert torch.equal(board.broken, board.distance <= eps)
    assert 0 < int(boards[2].broken.sum()) < len(images)


def test_its_curve_is_that_of_pgd_at_fixed_radii(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    """An adversarially trained network: steps along the plain gradient end at one and a half times the distance."""
    network, images, labels = digits
    board = search(FMN(steps=100, n_targets=2), network, images, labels, ThreatModel(norm="linf", eps=0.3), slots=48)
    assert board.distance is not None
    for eps in (0.2, 0.3, 0.4):
        pgd = search(PGD(steps=40), network, images, labels, ThreatModel(norm="linf", eps=eps), slots=48)
        assert int((board.distance > eps).sum()) <= int((~pgd.broken).sum()) + 1, eps


def test_a_boundary_that_another_class_hides_is_found_by_its_target(hidden: tuple[nn.Module, Tensor, Tensor]) -> None:
    untargeted = FMN(steps=100, targeted=False)
    one, two = (FMN(steps=100, n_targets=n) for n in (1, 2))
    for attack, due in ((untargeted, math.inf), (one, math.inf), (two, 0.3)):
        board = search(attack, *hidden, ThreatModel(norm="l2", eps=1.0))
        assert board.distance is not None
        assert board.distance.tolist() == pytest.approx([due] * 2, rel=0.01), attack


def test_the_radius_follows_algorithm_1(make_job: Callable[..., Any], play: Callable[..., Any]) -> None:
    """Margins by script: the radius is written down again step by step."""
    x, steps, gamma = torch.full((1, 1, 4, 4), 0.5), 8, 0.1
    margins = [-0.2, -0.1, 0.3, 0.2, -0.1, -0.2, 0.1, 0.1]
    slope = torch.full((1, 1, 4, 4), 0.25)

    def scripted(number: int, points: Tensor) -> Answer:
        margin = torch.tensor([margins[number]])
        return Answer(logits=torch.tensor([[0.0, margins[number]]]), loss=margin, gradient=slope)

    trace = play(FMN(steps=steps, gamma=gamma, targeted=False), make_job(x, "l2", 9.0), scripted)
    radius, nearest, found = math.inf, 2.0, False  # the farthest corner of the box is 0.5 sqrt(16) away
    for step, (points, state) in enumerate(trace):
        away = float((points - x).norm())
        share = 0.001 + (gamma - 0.001) * (1 + math.cos(math.pi * step / steps)) / 2
        if margins[step] > 0:
            nearest, found = min(nearest, away), True
            radius = min(radius * (1 - share), nearest)
        else:
            radius = radius * (1 + share) if found else (away + abs(margins[step]) / 1.0) * 1.001
        radius = min(radius, 2.0)
        assert float(state.radius) == pytest.approx(radius, rel=1e-5), step
        size = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
        # Along one straight line: a step forward, cut at the radius.
        assert float((state.x - x).norm()) == pytest.approx(min(away + size, radius), rel=1e-5), step


def test_a_network_without_slope_is_searched_to_the_end_and_left_unbroken() -> None:
    class Flat(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :3] * 0 + torch.tensor([1.0, 0.0, 0.0])

    images, labels = torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.long)
    for norm in ("linf", "l2", "l1"):
        threat = ThreatModel(norm=norm, eps=1.0)  # pyright: ignore[reportArgumentType]
        board = search(FMN(steps=7), Flat(), images, labels, threat)
        assert board.distance is not None
        assert board.distance.isinf().all()
        assert board.forward.tolist() == board.backward.tolist() == [14] * 3, "two targets"
        assert torch.equal(board.point, images)
