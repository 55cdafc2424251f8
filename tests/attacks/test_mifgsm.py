"""MI-FGSM against its two equations, written down again image by image."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robusteval.attacks.base import Answer
from robusteval.attacks.mifgsm import MIFGSM

STEPS, EPS = 6, 0.12


def gradients(number: int, points: Tensor) -> Tensor:
    """Gradients [n, ...] that depend on the step and on the point, of very different sizes from row to row."""
    swing = torch.sin(torch.arange(points[0].numel(), dtype=torch.float32) * (number + 1)).view_as(points[0])
    sizes = 10.0 ** -torch.arange(0, 12 * len(points), 12).view(-1, *[1] * (points.ndim - 1)).float()
    return (swing + 0.3 * points) * sizes


def answer(number: int, points: Tensor) -> Answer:
    n = len(points)
    return Answer(logits=torch.zeros(n, 3), loss=torch.zeros(n), gradient=gradients(number, points))


def published(x: np.ndarray, row: int, total: int, decay: float, step: float, norm: str) -> list[np.ndarray]:
    """Equations 6 and 7 (and their L2 form) in float64 for one image; the ball is large enough for no projection."""
    g, at, trace = np.zeros_like(x), x.copy(), []
    for number in range(STEPS + 1):
        trace.append(at.copy())
        points = torch.from_numpy(np.repeat(at[None], total, 0)).float()
        gradient = gradients(number, points)[row].double().numpy()
        g = decay * g + gradient / np.abs(gradient).sum()
        at = at + step * (np.sign(g) if norm == "linf" else g / np.sqrt((g * g).sum()))
    return trace


@pytest.mark.parametrize("decay", [1.0, 0.4, 0.0])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_points_are_those_of_the_equations(
    norm: str, decay: float, make_job: Callable[..., Any], play: Callable[..., Any]
) -> None:
    x = torch.full((3, 2, 3, 4), 0.5) + 0.1 * torch.rand(3, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    trace = play(MIFGSM(steps=STEPS, decay=decay), make_job(x, norm, EPS), answer)
    assert len(trace) == STEPS + 1
    for row in range(len(x)):
        due = published(x[row].double().numpy(), row, len(x), decay, EPS / STEPS, norm)
        for (points, _), point in zip(trace, due, strict=True):
            np.testing.assert_allclose(points[row].numpy(), point, atol=1e-6)


def test_a_gradient_of_zeros_leaves_the_image_where_it_is(
    make_job: Callable[..., Any], play: Callable[..., Any]
) -> None:
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))

    def flat(number: int, points: Tensor) -> Answer:
        return Answer(logits=torch.zeros(2, 3), loss=torch.zeros(2), gradient=torch.zeros_like(points))

    for norm in ("linf", "l2"):
        assert all(torch.equal(points, x) for points, _ in play(MIFGSM(steps=3), make_job(x, norm, 0.1), flat))


def test_the_momentum_carries_a_search_over_a_dip(make_job: Callable[..., Any], play: Callable[..., Any]) -> None:
    """After three gradients upwards one downwards does not turn the way, as it does without momentum."""
    x = torch.full((1, 1, 2, 2), 0.5)

    def dip(number: int, points: Tensor) -> Answer:
        slope = torch.full_like(points, -1.0 if number == 3 else 1.0)
        return Answer(logits=torch.zeros(1, 3), loss=torch.zeros(1), gradient=slope)

    heights = {}
    for decay in (1.0, 0.0):
        trace = play(MIFGSM(steps=5, decay=decay, step_size=0.01), make_job(x, "linf", 0.3), dip)
        heights[decay] = [round(float(points.mean()) * 100) for points, _ in trace]
    assert heights[1.0] == [50, 51, 52, 53, 54, 55]
    assert heights[0.0] == [50, 51, 52, 53, 52, 53]
