"""A confined attack never touches a pixel outside its region, to the last bit, and loses no strength inside it."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robusteval.attacks.noise import Noise
from robusteval.attacks.square import Square, _meeting
from robusteval.closed_form import HalfSpace, cap, linear_problem, small_convnet
from robusteval.engine.direct import search
from robusteval.threat import ThreatModel


def pictures() -> Tensor:
    """Images [6, 2, 8, 8]: black, white, and anywhere."""
    numbers = torch.Generator().manual_seed(3)
    return torch.cat([torch.zeros(1, 2, 8, 8), torch.ones(1, 2, 8, 8), torch.rand(4, 2, 8, 8, generator=numbers)])


def free(region: str, side: int = 8) -> Tensor:
    """Return which pixels a region holds, [side, side], written here anew."""
    ring = int(region.partition(":")[2])
    inner = torch.zeros(side, side, dtype=torch.bool)
    inner[ring : side - ring, ring : side - ring] = True
    return inner if region.startswith("interior") else ~inner


@pytest.mark.parametrize(("region", "path"), [("border:2", "host"), ("interior:3", "device")])
def test_nothing_outside_the_region_moves(case_in_norm: Any, region: str, path: Any) -> None:
    if case_in_norm.attack.parametric or not case_in_norm.attack.stages(case_in_norm.norm):
        pytest.skip("one number makes the whole image, so no region is taken")
    if path == "device" and not case_in_norm.leads:
        pytest.skip("the other path is tried with each attack's first options")
    network, images = small_convnet(channels=2), pictures()
    labels = network(images).argmax(1)
    threat = dataclasses.replace(case_in_norm.threat, region=region)
    seen: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, points: seen.append(points[0].detach().clone()))
    board = search(case_in_norm.attack, network, images, labels, threat, stop="never", slots=16, path=path)
    points, inside = torch.cat(seen).double(), free(region)
    changed = (points[:, None] - images.double()[None]).abs().amax(2)  # of every point, from every image
    whose = changed[:, :, ~inside].amax(2).argmin(1)
    away = changed[torch.arange(len(points)), whose]
    assert float(away[:, ~inside].max()) == 0
    assert float(away[:, inside].max()) > 0, "a test in which nothing moves proves nothing"
    assert torch.equal(board.point[:, :, ~inside], images[:, :, ~inside])
    if case_in_norm.attack.keeps != "nearest":
        assert threat.contains(board.point, images).all()


def confined_radius(problem: Any, norm: str, region: str) -> float:
    """Return the radius at which a linear problem breaks when only the region may move: margin / dual norm there."""
    w, dual = problem.module.weight.double(), {"linf": 1, "l2": 2}[norm]
    return float(problem.radius * w.norm(dual) / (w * free(region, w.shape[-1])).norm(dual))


@pytest.mark.parametrize("region", ["border:1", "interior:1"])
def test_the_optimum_inside_the_region_is_reached(optimum_case: Any, region: str) -> None:
    """As of the whole image: all broken 1 % above, none 1 % below."""
    if not optimum_case.leads:
        pytest.skip("a region is one more projection, whatever the options")
    problem = linear_problem(optimum_case.norm, (1, 6, 6), radius=0.05, n=4, classes=10)
    radius = confined_radius(problem, optimum_case.norm, region)
    for factor, broken in ((0.99, False), (1.01, True)):
        threat = dataclasses.replace(optimum_case.within(factor * radius), region=region)
        board = search(optimum_case.attack, problem.module, problem.images, problem.labels, threat)
        assert board.broken.tolist() == [broken] * 4, factor


def test_square_reaches_the_optimum_inside_the_region() -> None:
    """Eight pixels of a ring settled one by one, by windows that all meet it."""
    problem = linear_problem("linf", (1, 3, 3), radius=0.05, n=8, classes=10)
    radius = confined_radius(problem, "linf", "border:1")
    for factor, broken in ((0.99, False), (1.01, True)):
        threat = ThreatModel(norm="linf", eps=factor * radius, region="border:1")
        board = search(Square(queries=600, resc_schedule=True), problem.module, problem.images, problem.labels, threat)
        assert board.broken.tolist() == [broken] * 8, factor


def test_square_draws_every_window_that_meets_the_region_equally_often() -> None:
    region = torch.zeros(5, 6, dtype=torch.bool)
    region[1, 4] = True
    sides = torch.tensor([2] * 4000 + [5] * 1000)
    drawn = torch.rand(1, 5000, 2, generator=torch.Generator().manual_seed(0))
    corner = _meeting(region, sides, drawn)[0]
    due = {(row, column) for row in (0, 1) for column in (3, 4)}
    found, counts = np.unique(corner[:4000].numpy(), axis=0, return_counts=True)
    assert {(int(row), int(column)) for row, column in found} == due
    assert counts.min() > 900
    assert {(int(row), int(column)) for row, column in corner[4000:]} == {(0, 0), (0, 1)}


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "unbounded"])
def test_noise_is_uniform_in_the_ball_of_the_region(norm: Any) -> None:
    """A half-space is met at the rate of a ball of as many dimensions as may move; one outside, never."""
    n, queries, height = 2000, 2, 0.3
    eps = None if norm == "unbounded" else 0.3
    images, labels = torch.full((n, 1, 3, 3), 0.5), torch.zeros(n, dtype=torch.long)
    half_space = HalfSpace(0.5 + height * (eps or 0.5))
    threat = ThreatModel(norm=norm, eps=eps, region="border:1")  # eight of nine pixels
    broken = int(search(Noise(queries=queries), half_space, images, labels, threat, slots=256).broken.sum())
    share = 1 - (1 - cap(norm, height, 8)) ** queries
    assert abs(broken - n * share) < 4.5 * math.sqrt(n * share * (1 - share))
    inside = ThreatModel(norm=norm, eps=eps, region="interior:1")
    assert not search(Noise(queries=queries), half_space, images, labels, inside, slots=256).broken.any()
