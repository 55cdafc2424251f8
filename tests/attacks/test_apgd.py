"""APGD against its algorithm as published, step by step, against closed forms, and against the reference."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from robusteval.attacks.apgd import APGD
from robusteval.attacks.base import Answer
from robusteval.attacks.geometry import project_l1_in_box, sparse_sign
from robusteval.attacks.start import noise_of_length, support_of_noise
from robusteval.closed_form import Linear
from robusteval.engine.direct import search
from robusteval.threat import ThreatModel


def nearest_by_programme(y: np.ndarray, x: np.ndarray, eps: float) -> np.ndarray:
    """The nearest point of L1 ball and box by a quadratic programme: z = x + p - q, sum(p + q) <= eps."""
    k = len(y)

    def objective(v: np.ndarray) -> tuple[float, np.ndarray]:
        gap = x + v[:k] - v[k:] - y
        return 0.5 * float(gap @ gap), np.concatenate([gap, -gap])

    found = minimize(
        objective,
        np.zeros(2 * k),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1 - value) for value in x] + [(0, value) for value in x],
        constraints=[{"type": "ineq", "fun": lambda v: eps - v.sum(), "jac": lambda v: -np.ones_like(v)}],
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    assert found.success
    return x + found.x[:k] - found.x[k:]


def onto(y: np.ndarray, x: np.ndarray, eps: Any) -> np.ndarray:
    points, centre = torch.from_numpy(y).float(), torch.from_numpy(x).float()
    radius = torch.as_tensor(eps).float().expand(len(points))
    ends = torch.zeros_like(centre), torch.ones_like(centre)
    return project_l1_in_box(points, centre, *ends, radius).numpy()


@pytest.mark.parametrize("seed", range(20))
def test_l1_projection_is_the_nearest_point_of_ball_and_box(seed: int) -> None:
    numbers = np.random.default_rng(seed)
    x = numbers.uniform(0, 1, 6).astype(np.float32).astype(np.float64)
    x[:2] = seed % 2  # at an edge of the box
    y = x + numbers.normal(0, 0.7, 6)
    if seed % 4 == 0:
        y[2:5] = x[2:5] + 0.3  # ties
    eps = float(numbers.uniform(0.05, 1.5))
    assert onto(y[None], x[None], eps)[0] == pytest.approx(nearest_by_programme(y, x, eps), abs=3e-6)


@pytest.mark.parametrize("k", [1, 3, 50, 3000])
def test_l1_projection_satisfies_the_inequality_that_defines_it(k: int) -> None:
    """<y - P(y), z - P(y)> <= 0 for every z of ball and box; rows of different radius beside each other."""
    numbers = np.random.default_rng(k)
    n = 40
    x = numbers.uniform(0, 1, (n, k)).astype(np.float32)
    y = (x + numbers.normal(0, 1, (n, k)) * 10 ** numbers.uniform(-3, 1, (n, 1))).astype(np.float32)
    eps = np.float32(10) ** numbers.uniform(-4, 2.5, n).astype(np.float32)
    p = onto(y, x, torch.from_numpy(eps)).astype(np.float64)
    assert (np.abs(p - x).sum(1) <= eps).all(), "in float64, without slack"
    assert p.min() >= 0
    assert p.max() <= 1
    for _ in range(50):
        z = numbers.uniform(0, 1, (n, k)) - x
        z *= np.minimum(1, eps / np.abs(z).sum(1))[:, None] * numbers.uniform(0, 1, (n, 1))
        gap = y.astype(np.float64) - p
        assert (((gap * (x + z - p)).sum(1)) <= 2e-5 * (np.abs(gap).max(1) + 1) * np.minimum(eps, k)).all()


def test_an_l1_step_is_along_the_largest_entries_and_of_length_one() -> None:
    gradient = torch.tensor([[0.1, -3.0, 2.0, 0.0, -0.5], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert sparse_sign(gradient, torch.tensor([0.4, 0.4])).tolist() == [[0, -0.5, 0.5, 0, 0], [0] * 5]
    assert sparse_sign(gradient, torch.tensor([1.0, 0.0]))[0].tolist() == [0.25, -0.25, 0.25, 0, -0.25]
    assert sparse_sign(gradient, torch.tensor([0.0, 0.0]))[0].tolist() == [0, -1, 0, 0, 0], "at least one"


def scripted(losses: Callable[[int], float], direction: Tensor) -> Callable[[int, Tensor], Answer]:
    def answer(number: int, points: Tensor) -> Answer:
        loss = torch.full((len(points),), losses(number))
        return Answer(logits=torch.zeros(len(points), 10), loss=loss, gradient=direction.expand_as(points).clone())

    return answer


def halvings(trace: Sequence[Any], eps: float) -> dict[int, float]:
    """Return {steps made: step in eps} wherever the step was halved."""
    steps = [float(state.step[0]) / eps for _, state in trace]
    return {number: step for number, step in enumerate(steps) if step != ([2.0, *steps])[number]}


GREY = torch.full((2, 1, 4, 4), 0.5)


def test_a_loss_that_never_rises_halves_the_step_at_every_published_checkpoint(make_job: Any, play: Any) -> None:
    """After 22 of 100 steps, then at intervals shorter by 3 down to 6: Croce & Hein 2020, section 3.1."""
    trace = play(APGD(), make_job(GREY, "linf", 0.25), scripted(lambda number: -1.0, torch.tensor(1.0)))
    assert len(trace) == 101
    checkpoints = [22, 41, 57, 70, 80, 87, 93, 99]
    assert halvings(trace, 0.25) == {at: 2.0**-(number) for number, at in enumerate(checkpoints)}


def test_a_loss_that_keeps_rising_never_halves_the_step(make_job: Any, play: Any) -> None:
    trace = play(APGD(), make_job(GREY, "l2", 0.5), scripted(lambda number: float(number), torch.tensor(1.0)))
    assert halvings(trace, 0.5) == {}


@pytest.mark.parametrize(("rising", "halved"), [(16, True), (17, False)])
def test_three_quarters_of_a_window_must_rise(rising: int, halved: bool, make_job: Any, play: Any) -> None:
    """Of 22 steps 16.5: so 17 suffice and 16 do not."""
    script = [float(number if number <= rising else rising - number / 100) for number in range(23)]
    trace = play(APGD(), make_job(GREY, "linf", 0.25), scripted(lambda n: script[min(n, 22)], torch.tensor(1.0)))
    assert (22 in halvings(trace, 0.25)) == halved


@pytest.mark.parametrize(("first", "halved"), [(-4.0, True), (1.0, False)])
def test_the_first_step_is_compared_with_a_loss_of_zero(first: float, halved: bool, make_job: Any, play: Any) -> None:
    """As in the reference: with 10 steps the first window has 2, and both must rise (2 > 1.5)."""
    script = [-5.0, first, first + 1]
    trace = play(APGD(steps=10), make_job(GREY, "linf", 0.25), scripted(lambda n: script[min(n, 2)], torch.tensor(1.0)))
    assert (2 in halvings(trace, 0.25)) == halved


def test_a_best_loss_that_stands_still_since_the_last_look_halves_the_step_unless_just_halved(
    make_job: Any, play: Any
) -> None:
    """The second condition of the paper: always rising from a low, never above the best, so only it can fire."""
    script = [50.0 if number == 22 else (number if number < 22 else number - 100.0) for number in range(101)]
    trace = play(APGD(), make_job(GREY, "linf", 0.25), scripted(lambda n: float(script[n]), torch.tensor(1.0)))
    # Every loss from step 24 on rises. At 41 the best is that of 22 and the step was not halved at 22: halved. At 57 it
    # was just halved; at 70 not, and so on.
    assert list(halvings(trace, 0.25)) == [41, 70, 87, 99]


def test_halving_goes_back_to_the_best_point_and_its_gradient(make_job: Any, play: Any) -> None:
    """Point 3 is the best; after the look at step 22 the search steps from it, along the gradient found there."""

    def answer(number: int, points: Tensor) -> Answer:
        loss = torch.full((len(points),), 9.0 if number == 3 else -float(number))
        sign = 1.0 if number == 3 else -1.0
        return Answer(logits=torch.zeros(len(points), 10), loss=loss, gradient=torch.full_like(points, sign))

    trace = play(APGD(), make_job(GREY, "linf", 0.25), answer)
    best, last = trace[3][0], trace[22][0]
    ahead = (best + 0.25).clamp(max=0.75)
    due = (best + 0.75 * (ahead - best) + 0.25 * (best - last)).clamp(0.25, 0.75)
    assert torch.allclose(trace[23][0], due, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_starts_on_the_sphere_and_its_first_step_has_full_weight(norm: Any, make_job: Any, play: Any) -> None:
    direction = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    trace = play(APGD(steps=3), make_job(GREY, norm, 0.3), scripted(float, direction))
    ball = ThreatModel(norm=norm, eps=0.3)
    assert ball.distance(trace[0][0], GREY).tolist() == pytest.approx([0.3, 0.3], rel=1e-5)
    assert not torch.equal(trace[0][0][0], trace[0][0][1])
    if norm == "linf":  # a step of 2 eps, so every value ends at the far side
        assert torch.allclose(trace[1][0], GREY + 0.3 * direction.sign())
    else:
        ahead = trace[0][0] - GREY + 0.6 * direction / direction.norm()
        assert torch.allclose(
            trace[1][0] - GREY, 0.3 * ahead / ahead.flatten(1).norm(dim=1).view(-1, 1, 1, 1), atol=1e-6
        )


def test_l1_searches_balls_of_three_two_and_one_eps(make_job: Any, play: Any) -> None:
    """30, 30 and 40 of 100 steps, each phase with the point it starts from; only the last lies in the ball."""
    direction = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    x = torch.full((2, 1, 8, 8), 0.5)
    trace = play(APGD(), make_job(x, "l1", 2.0), scripted(float, direction))
    far = [float((points.double() - x.double()).abs().flatten(1).sum(1).max()) for points, _ in trace]
    assert len(far) == 103
    for begin, end, radius in ((0, 31, 6.0), (31, 62, 4.0), (62, 103, 2.0)):
        assert max(far[begin:end]) <= radius
        assert max(far[begin:end]) >= 0.999 * radius
    assert [round(float(state.radius[0])) for _, state in trace] == [6] * 30 + [4] * 31 + [2] * 42
    plain = play(APGD(large_eps=False), make_job(x, "l1", 2.0), scripted(float, direction))
    assert len(plain) == 101
    assert max(float((points - x).abs().flatten(1).sum(1).max()) for points, _ in plain) <= 2.0
    # Steps as short as the few steps allow; a single one is too short to be shared out.
    assert [len(play(APGD(steps=k), make_job(x, "l1", 2.0), scripted(float, direction))) for k in (1, 2, 3, 4)] == [
        2,
        3,
        6,
        7,
    ]


def test_a_phase_starts_from_the_best_point_of_the_one_before(make_job: Any, play: Any) -> None:
    direction = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    x = torch.full((2, 1, 8, 8), 0.5)
    trace = play(APGD(), make_job(x, "l1", 2.0), scripted(lambda n: 100.0 if n == 7 else -float(n), direction))
    best = trace[7][0]
    ends = torch.zeros_like(x), torch.ones_like(x)
    assert torch.equal(trace[31][0], project_l1_in_box(best, x, *ends, torch.tensor([4.0, 4.0])))


@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted_ce", "targeted_dlr"])
@pytest.mark.parametrize("large", [True, False])
def test_in_l1_a_linear_model_is_broken_at_its_margin_over_the_largest_weight(loss: Any, large: bool) -> None:
    """Hoelder: radius = margin / ||w||_inf while the box leaves room, reached along the largest weights alone.

    Of these there are two, since a perturbation of two values is as sparse as the published rule ever gets: 2/1.5 of
    the n values, rounded as in the reference, are two again.
    """
    numbers = torch.Generator().manual_seed(3)
    weight = torch.rand(1, 6, 6, generator=numbers) - 0.5
    weight[0, 2, 3], weight[0, 5, 0] = -0.8, 0.8
    module = Linear(weight, -0.5 * float(weight.sum()), 10)
    images = 0.5 + 0.05 * (torch.rand(6, 1, 6, 6, generator=numbers) - 0.5)
    images -= (((images - 0.5) * weight).flatten(1).sum(1) / (weight**2).sum()).view(-1, 1, 1, 1) * weight
    images += 0.3 * 0.8 / float((weight**2).sum()) * weight  # a margin of 0.24, so a radius of 0.3
    labels = module(images).argmax(1)
    assert labels.tolist() == [0] * 6
    for factor, broken in ((0.99, 0), (1.01, 6)):
        threat = ThreatModel(norm="l1", eps=0.3 * factor)
        board = search(APGD(loss=loss, n_targets=1, large_eps=large), module, images, labels, threat)
        assert int(board.broken.sum()) == broken, factor


def test_of_a_start_in_l1_rounding_counts_as_change(make_job: Any) -> None:
    """Black pixels round nothing, grey ones do: theirs is most of the count, and all of it lies in the region."""
    grey = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    radius = torch.full((4,), 2.0)
    counts = {}
    for name, x in {"black": torch.zeros_like(grey), "grey": grey}.items():
        job = make_job(x, "l1", 2.0)
        start = noise_of_length(job, radius)
        counts[name] = support_of_noise(job, start), (start != x).flatten(1).sum(1)
    assert torch.equal(*counts["black"])
    assert (counts["grey"][0] > 5 * counts["grey"][1]).all()
    job = dataclasses.replace(make_job(grey, "l1", 2.0), region=torch.zeros(4, 1, 16, 16, dtype=torch.bool))
    assert not support_of_noise(job, grey).any()


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_a_start_in_l1_is_as_dense_as_the_references(make_job: Any, shape: tuple[int, int, int]) -> None:
    reference = pytest.importorskip("pyautoattack.autopgd_base", reason="the reference is in the peers' environment")
    job = make_job(torch.rand(20, *shape, generator=torch.Generator().manual_seed(0)), "l1", 6.0)
    start = job.x + job.draw(shape, kind="normal")
    for _ in range(2):  # once where it is drawn, once where the first ball is entered
        start += reference.L1_projection(job.x, start - job.x, 6.0)
    theirs = reference.L0_norm(start.clamp(0, 1) - job.x).float()
    x = noise_of_length(job, torch.full((20,), 6.0))
    ours, changed = support_of_noise(job, x), (x != job.x).flatten(1).sum(1)
    rounded = theirs > 2 * changed  # in the others the second projection had something to do, which mends rounding
    assert 3 < int(rounded.sum()) < 17
    assert float((ours[rounded] / theirs[rounded]).median()) == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(changed[~rounded].float(), theirs[~rounded], rtol=0.03, atol=1)


@pytest.mark.parametrize(
    ("options", "norm", "eps"),
    [
        ({}, "linf", 0.3),
        ({"loss": "dlr"}, "linf", 0.3),
        ({"loss": "targeted_dlr", "n_targets": 3}, "linf", 0.3),
        ({}, "l2", 2.0),
        ({"n_restarts": 3}, "l1", 10.0),
    ],
)
def test_it_breaks_what_the_reference_breaks(options: dict[str, Any], norm: Any, eps: float, digits: Any) -> None:
    reference = pytest.importorskip("pyautoattack.autopgd_base", reason="the reference is in the peers' environment")
    network, images, labels = digits
    common = {"n_iter": 100, "eps": eps, "seed": 0, "norm": {"linf": "Linf"}.get(norm, norm.upper()), "device": "cpu"}
    common |= {"n_restarts": options.get("n_restarts", 1), "use_largereps": norm == "l1"}
    if options.get("loss") == "targeted_dlr":
        theirs = reference.APGDAttack_targeted(network, n_target_classes=3, **common)
    else:
        theirs = reference.APGDAttack(network, loss=options.get("loss", "ce"), **common)
    broken = network(theirs.perturb(images, labels)).argmax(1) != labels
    ours = search(APGD(**options), network, images, labels, ThreatModel(norm=norm, eps=eps)).broken
    assert 2 <= int(broken.sum()) <= 38, "or nothing is shown"
    assert int(ours.sum()) >= int(broken.sum()) - 1
    if norm != "l1":  # whose restarts reach rather different images
        assert int((ours != broken).sum()) <= 2
