"""CW: its steps against torch's Adam, its search over c and its distances against closed forms."""

import math

import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks.cw import CW
from robusteval.closed_form import linear_problem, small_convnet
from robusteval.engine.direct import search
from robusteval.threat import ThreatModel

L2 = ThreatModel(norm="l2", eps=0.5)


class Remembering(nn.Module):
    """Keeps the images of every pass that a gradient is asked of."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad:
            self.seen.append(images.detach().clone())
        return self.network(images)


def test_the_steps_are_those_of_torchs_adam() -> None:
    """The same objective written with torch.optim and autograd through tanh, image by image."""
    network, c, steps = small_convnet(), 0.7, 25
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.9 + 0.05
    labels = network(images).argmax(1).detach()
    watched = Remembering(network)
    search(
        CW(targeted=False, searches=1, steps=steps, constant=c, confidence=0.3, abort_early=False),
        watched,
        images,
        labels,
        L2,
    )
    assert len(watched.seen) == steps
    start = torch.atanh((2 * images - 1) * (1 - 1e-6))
    w = start.clone().requires_grad_()
    adam = torch.optim.Adam([w], lr=0.01)
    for points in watched.seen:
        x = (torch.tanh(w) + 1) / 2
        torch.testing.assert_close(points, x.detach(), atol=2e-4, rtol=0)
        logits = network(x)
        own = logits.gather(1, labels[:, None])[:, 0]
        others = logits.masked_fill(nn.functional.one_hot(labels, 10).bool(), -torch.inf).amax(1)
        objective = ((x - images) ** 2).flatten(1).sum(1) + c * (own - others + 0.3).clamp(min=0)
        adam.zero_grad()
        objective.sum().backward()
        adam.step()


def test_a_constant_below_the_threshold_finds_nothing_and_one_above_does() -> None:
    """|d|^2 + c (m - <w, d>) has its minimum at d = c w / 2, which crosses the boundary if c |w| / 2 > m / |w|."""
    problem = linear_problem("l2", (1, 4, 4), radius=0.1)
    threshold = 2 * problem.radius / float(problem.module.weight.norm())
    for factor, found in ((0.95, False), (1.05, True)):
        attack = CW(searches=1, steps=600, learning_rate=0.001, constant=factor * threshold)
        board = search(attack, problem.module, problem.images, problem.labels, L2)
        assert board.broken.tolist() == [found] * 8, factor


def test_the_search_finds_the_threshold_from_either_side() -> None:
    problem = linear_problem("l2", (1, 4, 4), radius=0.1)
    for constant in (1e-4, 100.0):
        attack = CW(searches=12, steps=100, learning_rate=0.003, constant=constant)
        board = search(attack, problem.module, problem.images, problem.labels, L2)
        assert board.distance is not None
        assert float(board.distance.max()) <= 1.02 * problem.radius, constant


@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 8, 8)])
def test_distances_on_linear_models_are_within_one_per_cent(shape: tuple[int, int, int]) -> None:
    problem = linear_problem("l2", shape, classes=3, radius=0.1, n=6)
    board = search(CW(steps=300, n_targets=1), problem.module, problem.images, problem.labels, L2)
    assert board.distance is not None
    ratio = board.distance / problem.radius
    assert float(ratio.min()) >= 1 - 1e-6
    assert float(ratio.max()) <= 1.01


def test_a_first_jump_over_a_near_boundary_does_not_mislead_the_search() -> None:
    """Adam's first step is as long in every pixel as the learning rate, whatever c: that is no success of c."""
    problem = linear_problem("l2", (1, 28, 28), radius=0.1, n=6)
    jump = 0.01 * 0.5 * 28
    assert jump > problem.radius
    board = search(CW(steps=300), problem.module, problem.images, problem.labels, L2)
    assert board.distance is not None
    assert float(board.distance.max()) <= 1.02 * problem.radius


def test_black_and_white_pixels_can_leave_the_edge() -> None:
    """At the very edge of the box tanh has no slope."""

    class Mean(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            gap = images.flatten(1).mean(1) - 0.5
            return torch.stack([gap, -gap], 1) * 20

    images = torch.cat([torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)])
    labels = torch.tensor([1, 1, 0, 0])
    board = search(CW(steps=400, learning_rate=0.1), Mean(), images, labels, L2)
    assert board.distance is not None
    torch.testing.assert_close(board.distance, torch.full((4,), 2.0, dtype=torch.float64), rtol=0.01, atol=0)


def test_a_confident_adversarial_lies_deeper_in_the_other_class() -> None:
    problem = linear_problem("l2", (1, 4, 4), radius=0.1)
    for confidence in (0.0, 0.05):
        attack = CW(searches=1, steps=300, constant=10, confidence=confidence, learning_rate=0.003, abort_early=False)
        watched = Remembering(problem.module)
        search(attack, watched, problem.images, problem.labels, L2)
        logits = problem.module(watched.seen[-1][:8])
        margin = logits.gather(1, 1 - problem.labels[:, None]) - logits.gather(1, problem.labels[:, None])
        torch.testing.assert_close(margin, torch.full((8, 1), confidence), atol=0.01, rtol=0)


def test_early_abort_saves_passes_and_hardly_any_distance() -> None:
    problem = linear_problem("l2", (1, 4, 4), radius=0.1)
    boards = [
        search(CW(steps=100, searches=5, abort_early=abort), problem.module, problem.images, problem.labels, L2)
        for abort in (True, False)
    ]
    assert boards[1].backward.tolist() == [5 * 100] * 8
    assert (boards[0].backward < 0.8 * boards[1].backward).all()
    assert boards[0].distance is not None
    assert boards[1].distance is not None
    torch.testing.assert_close(boards[0].distance, boards[1].distance, rtol=0.01, atol=0)


def test_a_boundary_that_another_class_hides_is_found_by_its_target(hidden: tuple[nn.Module, Tensor, Tensor]) -> None:
    untargeted = CW(steps=100, searches=5, constant=0.1, targeted=False)
    one, two = (CW(steps=100, searches=5, constant=0.1, n_targets=n) for n in (1, 2))
    for attack, due in ((untargeted, math.inf), (one, math.inf), (two, 0.3)):
        board = search(attack, *hidden, L2)
        assert board.distance is not None
        assert board.distance.tolist() == pytest.approx([due] * 2, rel=0.01), attack


def test_it_may_be_led_in_bfloat16() -> None:
    """Its option ``searches`` must not hide the question whether it is a search."""
    assert CW(searches=3).is_search()
