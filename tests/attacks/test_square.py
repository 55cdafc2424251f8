"""Square: its schedule, patterns and windows against the paper and upstream; on linear models against all corners."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks.asking import unasked
from robusteval.attacks.base import Answer, State
from robusteval.attacks.geometry import project_l1_in_box
from robusteval.attacks.square import Square, pattern, sides
from robusteval.closed_form import Linear, small_convnet
from robusteval.engine.direct import search
from robusteval.threat import ThreatModel

SHAPES = [(1, 1, 1), (1, 1, 7), (3, 5, 9), (1, 12, 4), (2, 19, 19), (3, 32, 32)]


def test_the_sides_of_the_windows_are_those_of_the_published_schedule() -> None:
    """Section 5 of the paper, 10 000 queries on 28 x 28: sqrt(p 784) with p halved after 10, 50, 200 ... queries."""
    found = sides(Square(queries=10_000), 28, 28, "linf")
    after = {0: 0.8, 11: 0.4, 51: 0.2, 201: 0.1, 501: 0.05, 1001: 0.025, 2001: 0.0125, 4001: 0.00625, 6001: 0.003125}
    for step, share in {**after, 10: 0.8, 50: 0.4, 8000: 0.003125, 8001: 0.0015625}.items():
        assert found[step] == max(round(math.sqrt(share * 784)), 1), step
    stretched = sides(Square(queries=1000, resc_schedule=True), 28, 28, "linf")
    assert stretched == found[::10]
    for side in sides(Square(queries=9000), 28, 28, "l2"):
        assert side % 2 == 1
        assert side >= 3


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 11])
def test_a_pattern_is_two_hills_of_opposite_sign(side: int) -> None:
    both = pattern(side, "l2")
    assert float(both[1].norm()) == pytest.approx(1, abs=1e-6)
    assert torch.equal(both[0], both[1].T)
    assert (both[1][: side // 2] > 0).all()
    assert (both[1][side // 2 :] < 0).all()
    if side == 3:
        # One row of k = 2 around its middle; two rows, the second of which holds the middle. By hand from equation 2.
        upper = torch.tensor([[0.25, 1.25, 0.25]])
        lower = torch.tensor([[0.25, 0.25, 0.25], [0.25, 1.25, 0.25]])
        due = torch.cat([upper / upper.norm(), -lower / lower.norm()])
        torch.testing.assert_close(both[1], due / due.norm())


def test_patterns_and_schedule_are_upstreams() -> None:
    square = pytest.importorskip("pyautoattack.square")
    for norm, ours in (("Linf", "linf"), ("L2", "l2"), ("L1", "l1")):
        for queries, stretched in ((700, False), (1300, True)):
            theirs = square.SquareAttack(
                None, norm=norm, n_queries=queries, eps=0.3, resc_schedule=stretched, device="cpu"
            )
            for height, width in ((28, 28), (17, 30)):
                due = []
                for step in range(queries):
                    share = theirs.p_selection(step)
                    side = max(round(math.sqrt(share * height * width)), 1 if ours == "linf" else 3)
                    due.append(min(side + (ours != "linf" and side % 2 == 0), height, width))
                assert sides(Square(queries=queries, resc_schedule=stretched), height, width, ours) == due
    for norm, ours in (("L2", "l2"), ("L1", "l1")):
        theirs = square.SquareAttack(None, norm=norm, eps=0.3, device="cpu")
        for side in (2, 3, 4, 5, 7, 9, 25):
            torch.manual_seed(0)
            patterns = [theirs.eta(side) for _ in range(20)]
            for found in patterns:
                assert any(torch.allclose(found, one, atol=1e-6) for one in pattern(side, ours))


def climbing(number: int, points: Tensor) -> Answer:
    """A margin that every query raises, so that every proposal is kept."""
    return Answer(logits=torch.tensor([0.0, float(number)]).expand(len(points), 2))


@pytest.mark.parametrize("shape", SHAPES)
def test_each_linf_query_changes_one_square_to_an_end_of_the_ball(
    shape: tuple[int, int, int], make_job: Callable[..., Any], play: Callable[..., Any]
) -> None:
    x, eps, queries = torch.rand(4, *shape, generator=torch.Generator().manual_seed(2)), 0.2, 40
    job = make_job(x, "linf", eps)
    trace = play(Square(queries=queries), job, climbing)
    assert len(trace) == queries + 1
    start = trace[0][0]
    ends = (start == job.lo) | (start == job.hi)
    assert ends.all()
    columns = torch.where(start == job.hi, 1, -1)
    assert (columns == columns[:, :, :1]).all(), "stripes run from top to bottom"
    side = sides(Square(queries=queries), *shape[1:], "linf")
    for step, ((before, _), (after, _)) in enumerate(itertools.pairwise(trace)):
        for row in range(len(x)):
            changed = (before[row] != after[row]).any(0).nonzero()
            if len(changed):
                extent = changed.amax(0) - changed.amin(0) + 1
                assert int(extent.max()) <= side[step]
            assert ((after[row] == job.lo[row]) | (after[row] == job.hi[row])).all()


def moved(attack: Square, state: State, steps: list[int], *, asked: bool) -> None:
    """Let each slot make the move of its step, with equal logits for all."""
    state.taken = torch.tensor(steps)
    with contextlib.nullcontext() if asked else unasked():
        moves = attack.iterate(state)
        next(moves)
        with pytest.raises(StopIteration):
            moves.send(Answer(logits=torch.zeros(len(steps), 10)))


@pytest.mark.parametrize("shape", [(1, 12, 4), (3, 32, 32)])
@pytest.mark.parametrize("asked", [True, False], ids=["asked", "unasked"])
def test_slots_at_different_steps_get_the_windows_that_they_drew(
    make_job: Callable[..., Any], shape: tuple[int, int, int], asked: bool
) -> None:
    """By hand: side, corner and signs of each slot's own step, whatever its neighbours are at."""
    attack = Square(queries=3000)
    job = make_job(torch.rand(6, *shape, generator=torch.Generator().manual_seed(0)), "linf", 0.03)
    for steps in ([0, 40, 300, 700, 1500, 2999], [2500] * 6):
        state = attack.start(job)
        moved(attack, state, steps, asked=asked)
        expected, long = state.best.clone(), sides(attack, *shape[1:], "linf")
        for slot, step in enumerate(steps):
            row, column, *up = state.drawn[slot, step].tolist()
            window = (slice(row, row + long[step]), slice(column, column + long[step]))
            for channel, upward in enumerate(up):
                expected[slot, channel][window] = (job.hi if upward else job.lo)[slot, channel][window]
        assert torch.equal(state.x, expected)


def test_windows_lie_everywhere_and_their_signs_are_fair(
    make_job: Callable[..., Any], play: Callable[..., Any]
) -> None:
    """Up to the last row and column, which upstream's windows never reach."""
    attack = Square(queries=600, p_init=0.05)
    state = attack.start(make_job(torch.rand(8, 2, 6, 9), "linf", 0.1))
    side = torch.tensor(sides(attack, 6, 9, "linf"))
    for place, length in ((0, 6), (1, 9)):
        for size in side.unique().tolist():
            corners = state.drawn[:, side == size, place].flatten().long()
            share = corners.bincount(minlength=length - size + 1) / len(corners)
            assert len(share) == length - size + 1
            assert (share * len(share) - 1).abs().max() < 6 * (len(share) / len(corners)) ** 0.5
    assert float(state.drawn[..., 2:].float().mean()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if min(shape[1:]) >= 3])
def test_each_l2_query_lies_on_the_sphere_and_changes_two_squares(
    shape: tuple[int, int, int], make_job: Callable[..., Any], play: Callable[..., Any]
) -> None:
    x, eps = torch.full((4, *shape), 0.5), 0.3  # so small that the box is not met
    attack = Square(queries=30)
    trace = play(attack, make_job(x, "l2", eps), climbing)
    side = sides(attack, *shape[1:], "l2")
    for step, ((before, _), (after, _)) in enumerate(itertools.pairwise(trace)):
        torch.testing.assert_close((after - x).flatten(1).norm(dim=1), torch.full((4,), eps), rtol=1e-5, atol=0)
        for row in range(4):
            changed = ((before[row] - after[row]).abs() > 1e-5).any(0)
            assert int(changed.sum()) <= 2 * side[step] ** 2


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("region", [False, True], ids=["everywhere", "in a region"])
@pytest.mark.parametrize("asked", [True, False], ids=["asked", "unasked"])
def test_length_moves_between_the_two_windows_that_each_slot_drew(
    norm: Any, region: bool, asked: bool, make_job: Callable[..., Any]
) -> None:
    """Algorithm 3 by hand, image by image and in float64, whatever the neighbours are at."""
    x, eps, order = torch.full((6, 3, 12, 15), 0.5), 0.4, {"l2": 2, "l1": 1}[norm]
    attack, job = Square(queries=3000), make_job(x, norm, eps)
    where = torch.ones(6, 1, 12, 15, dtype=torch.bool)
    if region:
        where[:, :, 3:11, 2:9] = False
        job = dataclasses.replace(job, region=where, lo=torch.where(where, job.lo, x), hi=torch.where(where, job.hi, x))
    sized = sides(attack, 12, 15, norm)
    for steps in ([0, 60, 300, 700, 1500, 2999], [900] * 6):
        state = attack.start(job)
        # Half as long as may be, so that there is length to spare as well.
        state.x = x + (state.x - x) * torch.tensor([1.0, 0.5, 0.5, 1.0, 0.5, 0.5]).view(-1, 1, 1, 1)
        moved(attack, state, steps, asked=asked)
        for slot, step in enumerate(steps):
            d = (state.best - x)[slot].double().numpy()
            row, column, row_2, column_2, *ups, lies = state.drawn[slot, step].tolist()
            gains, gives = np.zeros((12, 15), bool), np.zeros((12, 15), bool)
            gains[row : row + sized[step], column : column + sized[step]] = True
            gives[row_2 : row_2 + sized[step], column_2 : column_2 + sized[step]] = True
            shape = np.zeros((12, 15))
            shape[gains] = pattern(sized[step], norm)[lies].double().numpy().ravel()
            gains, gives = gains & where[slot, 0].numpy(), gives & where[slot, 0].numpy()
            used = np.linalg.norm(d.ravel(), order)
            for channel, up in enumerate(ups):
                plane = d[channel]
                new = shape[gains] * (-1 if up else 1) + plane[gains] / (np.linalg.norm(plane[gains], order) + 1e-12)
                given = np.linalg.norm(plane[gains | gives], order)
                may = {"l2": max(eps**2 - used**2, 0) / 3 + given**2, "l1": max(eps - used, 0) + given * 3}[norm]
                plane[gives] = 0
                plane[gains] = new / (np.linalg.norm(new, order) + 1e-12) * (may**0.5 if norm == "l2" else may)
            d = torch.from_numpy(d).float()[None]
            if norm == "l2":
                due = x[slot] + d[0] * eps / d.norm()
            else:
                bounds = (each[slot : slot + 1] for each in (job.lo, job.hi, job.eps))
                due = project_l1_in_box(x[slot] + d, x[slot : slot + 1], *bounds)[0]
            torch.testing.assert_close(state.x[slot], due, rtol=0, atol=2e-6)


def test_on_a_linear_model_the_best_corner_of_the_ball_is_found() -> None:
    """Windows of one pixel settle each pixel by itself, so the search ends at the best of all 2^9 corners."""
    weight = torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(3))
    x, eps = torch.full((6, 1, 3, 3), 0.5), 0.1
    network = Linear(weight, 3.0)  # nothing breaks it
    board = search(
        Square(queries=800, resc_schedule=True),
        network,
        x,
        torch.zeros(6, dtype=torch.long),
        ThreatModel(norm="linf", eps=eps),
        stop="never",
    )
    corners = torch.tensor(list(itertools.product((-eps, eps), repeat=9))).view(-1, 1, 3, 3) + 0.5
    highest = network(corners)[:, 1].max()
    torch.testing.assert_close(board.logits[:, 1], highest.expand(6))


def test_an_l1_pattern_falls_faster_and_has_unit_sum() -> None:
    both = pattern(5, "l1")
    assert float(both.abs().sum()) == pytest.approx(2, abs=1e-6)
    # Three rows of five around the middle, by hand: k = 1, 2, 3 give 1, 1 / 16, 1 / 81, added up from the outside.
    outer, middle, inner = 1 / 81, 1 / 81 + 1 / 16, 1 / 81 + 1 / 16 + 1
    lower = torch.tensor([[outer, middle, middle, middle, outer], [outer, middle, inner, middle, outer]])
    lower = torch.cat([lower, lower[:1]])
    torch.testing.assert_close(both[1][2:], -lower / lower.sum() / 2)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("shape", SHAPES)
def test_images_of_any_shape_are_searched(norm: Any, shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(4)
    network = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 4))
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    x = torch.rand(9, *shape, generator=generator)
    with torch.no_grad():
        labels = network(x).argmax(1)
    eps = {"linf": 0.4, "l2": 0.3 * math.prod(shape) ** 0.5, "l1": 0.2 * math.prod(shape)}[norm]
    board = search(Square(queries=60), network, x, labels, ThreatModel(norm=norm, eps=eps))
    assert board.broken.any()


def test_only_the_window_that_raises_the_margin_is_kept(make_job: Callable[..., Any], play: Callable[..., Any]) -> None:
    """Of proposals that lower the margin none is built upon: each next one starts at the best point so far."""
    margins = [0.0, -1.0, 2.0, 1.0, 2.0, 3.0]  # an equal one is no better

    def scripted(number: int, points: Tensor) -> Answer:
        return Answer(logits=torch.tensor([0.0, margins[number]]).expand(len(points), 2))

    trace = play(Square(queries=5), make_job(torch.rand(3, 1, 8, 8), "linf", 0.1), scripted)
    for (_, state), of in zip(trace, (0, 0, 2, 2, 2, 5), strict=True):
        assert torch.equal(state.best, trace[of][0])


def test_it_breaks_as_much_as_upstream(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    square = pytest.importorskip("pyautoattack.square")
    network, images, labels = digits
    for norm, theirs, eps in (("linf", "Linf", 0.35), ("l2", "L2", 2.5), ("l1", "L1", 20.0)):
        threat = ThreatModel(norm=norm, eps=eps)  # pyright: ignore[reportArgumentType]
        board = search(Square(queries=150), network, images, labels, threat, slots=48)
        upstream = square.SquareAttack(
            network, norm=theirs, n_queries=150, eps=eps, resc_schedule=False, device="cpu", seed=0
        )
        found = network(upstream.perturb(images.clone(), labels.clone())).argmax(1) != labels
        assert int(found.sum()) >= 4, "a comparison in which nothing breaks proves nothing"
        assert abs(int(board.broken.sum()) - int(found.sum())) <= 4


def test_a_query_is_one_pass_and_the_start_another() -> None:
    network = small_convnet()
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        labels = network(x).argmax(1)
    board = search(Square(queries=25), network, x, labels, ThreatModel(norm="linf", eps=1e-6))
    assert (board.forward - board.moved.long()).tolist() == [26] * 3  # and one to confirm the kept point
    assert board.backward.tolist() == [0] * 3
