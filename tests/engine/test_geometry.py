"""Projections and directions against references that know nothing of them."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from robusteval.attacks.geometry import length, project, steepest


def nearest_in_l1(d: np.ndarray, radius: float) -> np.ndarray:
    """The L1 ball's nearest point by a quadratic programme: d = p - q with p, q >= 0 and sum(p + q) <= radius."""
    k = len(d)

    def objective(v: np.ndarray) -> tuple[float, np.ndarray]:
        gap = v[:k] - v[k:] - d
        return 0.5 * float(gap @ gap), np.concatenate([gap, -gap])

    found = minimize(
        objective,
        np.zeros(2 * k),
        jac=True,
        method="SLSQP",
        bounds=[(0, None)] * (2 * k),
        constraints=[{"type": "ineq", "fun": lambda v: radius - v.sum(), "jac": lambda v: -np.ones_like(v)}],
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    return found.x[:k] - found.x[k:]


@pytest.mark.parametrize("seed", range(12))
def test_l1_projection_is_the_nearest_point_of_the_ball(seed: int) -> None:
    numbers = np.random.default_rng(seed)
    d = numbers.normal(0, 0.05, 6)
    if seed % 3 == 0:
        d[:3] = d[0]  # ties
    radius = float(numbers.uniform(0.02, 0.35))
    x = torch.full((1, 6), 0.5)
    wide = torch.full((1, 6), -1.0), torch.full((1, 6), 2.0)
    ours = project(x + torch.from_numpy(d).float(), x, *wide, torch.tensor([radius]), "l1") - x
    assert ours[0].numpy() == pytest.approx(nearest_in_l1(d, radius), abs=2e-6)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30), st.floats(1e-3, 3), st.sampled_from(["l1", "l2"]))
def test_projection_satisfies_the_inequality_that_defines_it(seed: int, dim: int, radius: float, norm: Any) -> None:
    """<d - P(d), z - P(d)> <= 0 for every z of the ball, so for the one that is furthest along d - P(d)."""
    numbers = torch.Generator().manual_seed(seed)
    x = torch.zeros(1, dim)
    d = torch.randn(1, dim, generator=numbers)
    wide = torch.full((1, dim), -torch.inf), torch.full((1, dim), torch.inf)
    p = project(d, x, *wide, torch.tensor([radius]), norm).double()
    gap = d.double() - p
    assert length(p, norm).item() <= radius
    highest = radius * (gap.abs().max() if norm == "l1" else gap.norm())
    assert float(highest - (gap * p).sum()) <= 1e-5 * (1 + radius) * (1 + float(gap.abs().sum()))


def test_l2_projection_keeps_the_direction() -> None:
    x = torch.full((2, 3, 4, 4), 0.5)
    d = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.001, 0.1]).view(2, 1, 1, 1)
    lo, hi = torch.zeros_like(x), torch.ones_like(x)
    moved = project(x + d, x, lo, hi, torch.tensor([0.1, 0.1]), "l2") - x
    assert torch.allclose(moved[0], d[0], atol=1e-7), "inside already"
    assert torch.allclose(moved[1], d[1] * 0.1 / d[1].norm(), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-42, 1e-36, 1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_steepest_has_unit_length_at_any_scale_of_the_gradient(scale: float) -> None:
    """The gradient of a confident network is tiny; its squares underflow, its direction must not."""
    gradient = torch.tensor([[3.0, -4.0, 0.0], [0.0, 0.0, 0.0]]) * scale
    l2, linf = steepest(gradient, "l2"), steepest(gradient, "linf")
    assert l2[0].tolist() == pytest.approx([0.6, -0.8, 0.0], rel=2e-2)
    assert linf[0].tolist() == [1.0, -1.0, 0.0]
    assert not l2[1].any()
    assert not linf[1].any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steepest_beats_every_other_direction_of_unit_length(norm: Any) -> None:
    numbers = torch.Generator().manual_seed(1)
    gradient = torch.randn(1, 20, generator=numbers)
    best = float((gradient * steepest(gradient, norm)).sum())
    others = torch.randn(2000, 20, generator=numbers)
    others /= length(others, norm)[:, None]
    assert float((others @ gradient[0]).max()) <= best
    assert length(steepest(gradient, norm), norm).item() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_length_of_a_row_does_not_depend_on_its_company(norm: Any) -> None:
    d = torch.randn(16, 150528, generator=torch.Generator().manual_seed(2))
    torch.set_num_threads(2)
    together = length(d, norm)
    for n in (1, 2, 7):
        assert torch.equal(length(d[:n], norm), together[:n])
    exact = np.linalg.norm(d.numpy().astype(np.float64), {"l2": 2, "l1": 1}[norm], axis=1)
    assert together.numpy() == pytest.approx(exact, rel=1e-7)


def test_an_unknown_norm_is_refused() -> None:
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="no projection"):
        project(x, x, x, x, torch.ones(1), "l0")
    with pytest.raises(ValueError, match="no steepest"):
        steepest(x, "l1")
