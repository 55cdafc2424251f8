"""FAB's way onto a hyperplane against linear and quadratic programmes, its steps by hand, and the reference."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

from robusteval.attacks.base import Answer
from robusteval.attacks.fab import FAB
from robusteval.attacks.hyperplane import onto_hyperplane
from robusteval.closed_form import Linear
from robusteval.engine.direct import search
from robusteval.threat import ThreatModel

NORMS = ["linf", "l2", "l1"]


def shortest(x: np.ndarray, w: np.ndarray, gap: float, norm: str) -> float | None:
    """The length of the shortest d with <w, d> = -gap in the box, by a programme solver; None where there is none."""
    k, room = len(x), list(zip(-x, 1 - x, strict=True))
    farthest = -linprog(np.sign(gap) * w, bounds=room).fun
    if farthest < abs(gap):
        return None
    if norm == "linf":  # minimise r with |d_i| <= r
        bound = np.vstack([np.c_[np.eye(k), -np.ones(k)], np.c_[-np.eye(k), -np.ones(k)]])
        found = linprog([0] * k + [1], bound, np.zeros(2 * k), [[*w, 0]], [-gap], [*room, (0, None)])
    elif norm == "l1":  # d = p - q
        found = linprog(np.ones(2 * k), None, None, [[*w, *-w]], [-gap], [(0, 1 - v) for v in x] + [(0, v) for v in x])
    else:
        w, gap = w / np.linalg.norm(w), gap / float(np.linalg.norm(w))  # the solver wants a problem of scale 1
        found = minimize(
            lambda d: float(d @ d),
            np.zeros(k),
            jac=lambda d: 2 * d,
            method="SLSQP",
            bounds=room,
            constraints=[{"type": "eq", "fun": lambda d: w @ d + gap, "jac": lambda d: w}],
            options={"ftol": 1e-15, "maxiter": 1000},
        )
    assert found.success
    return float(np.sqrt(found.fun) if norm == "l2" else found.fun)


def way(x: np.ndarray, w: np.ndarray, gap: np.ndarray, norm: str) -> np.ndarray:
    points, normal = torch.from_numpy(x).float(), torch.from_numpy(w).float()
    ends = torch.zeros_like(points), torch.ones_like(points)
    return onto_hyperplane(points, normal, torch.from_numpy(gap).float(), *ends, norm).double().numpy()


def length(d: np.ndarray, norm: str) -> np.ndarray:
    return np.linalg.norm(d, {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1)


@pytest.mark.parametrize("norm", NORMS)
def test_the_way_onto_a_hyperplane_is_the_shortest_within_the_box(norm: str) -> None:
    numbers = np.random.default_rng(5)
    n, k = 60, 7
    x = numbers.uniform(0, 1, (n, k))
    x[::3, :3], x[1::3, 2:4] = 0, 1  # at edges of the box
    w = numbers.normal(0, 1, (n, k)) * 10 ** numbers.uniform(-2, 2, (n, 1))
    w[::4, 1] = 0
    w[::5, 2:4] = w[::5, :1]  # ties
    gap = numbers.normal(0, 0.8, n) * np.linalg.norm(w, axis=1)
    d = way(x, w, gap, norm)
    due = [shortest(*row, norm) for row in zip(x, w, gap, strict=True)]
    there = np.array([value is not None for value in due])
    assert 30 <= there.sum() <= 59, "some beyond reach, or that is not tried"
    assert (x + d).min() >= -1e-6
    assert (x + d).max() <= 1 + 1e-6
    left = np.abs((w * d).sum(1) + gap) / np.linalg.norm(w, axis=1)
    assert left[there].max() <= 3e-6
    assert length(d, norm)[there] == pytest.approx([value for value in due if value is not None], abs=1e-5)
    # Beyond reach: every value goes all the way.
    corner = np.where(w * -gap[:, None] > 0, 1 - x, -x) * (w != 0)
    assert d[~there] == pytest.approx(corner[~there], abs=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6])
def test_the_scale_of_the_gradient_does_not_matter(norm: str, scale: float) -> None:
    numbers = np.random.default_rng(6)
    x, w = numbers.uniform(0, 1, (8, 300)), numbers.normal(0, 1, (8, 300))
    gap = numbers.normal(0, 2, 8)
    assert way(x, w * scale, gap * scale, norm) == pytest.approx(way(x, w, gap, norm), abs=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_no_gradient_and_no_gap_mean_no_step(norm: str) -> None:
    x = np.full((2, 4), 0.5)
    w = np.array([[0.0, 0, 0, 0], [1, -1, 2, 0]])
    assert not way(x, w, np.array([0.3, 0.0]), norm).any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("k", [20, 3000, 40000])
def test_a_row_has_the_same_bits_in_any_company(norm: str, k: int) -> None:
    """Rows that need many sweeps beside those that need few, and rows so long that torch would split a single one."""
    numbers = np.random.default_rng(7)
    x, w = numbers.uniform(0, 1, (6, k)), numbers.normal(0, 1, (6, k)) ** 3
    gap = numbers.normal(0, 1, 6) * k * 10.0 ** -np.arange(6)
    torch.set_num_threads(2)
    together = way(x, w, gap, norm)
    for rows in ([0], [5], [3, 1]):
        assert (way(x[rows], w[rows], gap[rows], norm) == together[rows]).all()


def linear(norm: str) -> tuple[Linear, Tensor, float]:
    """A linear model, a grey image of class 0 and its radius in the norm; the box is far away."""
    weight = torch.rand(1, 5, 5, generator=torch.Generator().manual_seed(3)) - 0.5
    margin = {"linf": 0.1 * float(weight.abs().sum()), "l2": 0.1 * float(weight.norm()), "l1": 0.02}[norm]
    radius = margin / float(weight.abs().max()) if norm == "l1" else 0.1
    return Linear(weight, margin - 0.5 * float(weight.sum())), torch.full((1, 1, 5, 5), 0.5), radius


@pytest.mark.parametrize("norm", NORMS)
def test_on_a_linear_model_the_distances_follow_the_published_step(norm: Any, make_job: Any, play: Any) -> None:
    """In units of the radius: from s to (1 - a)(s + 1.05 (1 - s)) + a 1.05 with a = |1 - s| / (|1 - s| + 1) at most
    0.1, and 0.9 of that where it exceeds 1 (equations 9 to 11 and algorithm 1)."""
    module, image, radius = linear(norm)
    asked = []

    def answer(number: int, points: Tensor) -> Answer:
        asked.append(points)
        leaf = points.clone().requires_grad_()
        lead = module(leaf).diff(dim=1)[:, 0]
        lead.sum().backward()
        # The same answer serves the second query, on the point moved to: it is always beyond the boundary.
        return Answer(logits=torch.tensor([[0.0, 1.0]]), loss=lead.detach(), gradient=leaf.grad)

    play(FAB(steps=6), make_job(image, norm, 1.0, classes=2), answer)
    ball = ThreatModel(norm=norm, eps=1.0)
    due = [0.0]
    for _ in range(5):
        s = due[-1]
        mix = min(abs(1 - s) / (abs(1 - s) + 1), 0.1)
        moved = (1 - mix) * (s + 1.05 * (1 - s)) + mix * 1.05
        assert moved > 1
        due.append(0.9 * moved)
    came = [float(ball.distance(points, image)) / radius for points in asked]
    assert came == pytest.approx(due, abs=2e-5)


def test_in_l1_it_reaches_the_optimum_of_a_linear_model() -> None:
    module, image, radius = linear("l1")
    for factor, broken in ((0.99, False), (1.01, True)):
        threat = ThreatModel(norm="l1", eps=factor * radius)
        board = search(FAB(), module, image, torch.zeros(1, dtype=torch.long), threat)
        assert board.broken.tolist() == [broken], factor


def test_later_restarts_start_at_half_of_eps() -> None:
    seen: list[Tensor] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = linear("l2")[0]

        def forward(self, images: Tensor) -> Tensor:
            seen.append(images[0].detach().clone())
            return self.network(images)

    image, eps = torch.full((1, 1, 5, 5), 0.5), 0.05  # within the radius, so that nothing ends it
    search(
        FAB(steps=1, n_restarts=2), Watched(), image, torch.zeros(1, dtype=torch.long), ThreatModel(norm="l2", eps=eps)
    )
    clean, first, _, second, *_ = seen
    assert torch.equal(first, clean)
    assert float((second - clean).norm()) == pytest.approx(eps / 2, rel=1e-5)


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.3), ("l2", 2.0), ("l1", 8.0)])
def test_it_breaks_what_the_reference_breaks(norm: Any, eps: float, targeted: bool, digits: Any) -> None:
    reference = pytest.importorskip("pyautoattack.fab_pt", reason="the reference is in the peers' environment")
    network, images, labels = digits
    theirs = reference.FABAttack_PT(
        network,
        norm={"linf": "Linf"}.get(norm, norm.upper()),
        n_iter=50 if targeted else 20,
        eps=eps,
        targeted=targeted,
        n_target_classes=2,
        seed=0,
        device="cpu",
    )
    broken = network(theirs.perturb(images, labels)).argmax(1) != labels
    attack = FAB(steps=50, n_targets=2) if targeted else FAB(steps=20, targeted=False)
    ours = search(attack, network, images, labels, ThreatModel(norm=norm, eps=eps)).broken
    assert 2 <= int(broken.sum()) <= 38, "or nothing is shown"
    assert int(ours.sum()) >= int(broken.sum()) - 1


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_untargeted_it_steps_to_the_nearest_boundary_of_a_linear_model(norm: Any) -> None:
    """The boundary is found by the closed form |z_k - z_y| over the dual norm of the difference of weights."""
    generator = torch.Generator().manual_seed(1)
    linear = nn.Linear(12, 5).requires_grad_(False)
    network = nn.Sequential(nn.Flatten(), linear)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    images = 0.5 + 0.001 * torch.randn(20, 3, 2, 2, generator=generator)
    labels = network(images).argmax(1)
    weight, logits = linear.weight, network(images)
    dual = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
    distance = torch.stack([
        torch.stack([
            (logits[row, label] - logits[row, other]) / torch.linalg.vector_norm(weight[label] - weight[other], dual)
            if other != label
            else torch.tensor(torch.inf)
            for other in range(5)
        ]).min()
        for row, label in enumerate(labels.tolist())
    ])  # fmt: skip
    for factor, due in ((0.98, 0), (1.07, 1)):  # a step goes eta = 1.05 times as far
        for row in range(20):
            eps = float(distance[row] * factor)
            one = slice(row, row + 1)
            board = search(
                FAB(steps=1, targeted=False), network, images[one], labels[one], ThreatModel(norm=norm, eps=eps)
            )
            assert int(board.broken.sum()) == due, (row, factor)
