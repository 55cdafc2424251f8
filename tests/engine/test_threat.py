"""The threat model: rounding inward, projections and distances, and when an image counts as broken."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robusteval.threat import ThreatModel

pixel = st.floats(0, 1, width=32)
radius = st.one_of(st.floats(0, 2), st.sampled_from([0.0, 1e-45, 1e-12, 1e-8, 0.3, 8 / 255, 0.1, 1.0]))


@settings(max_examples=400, deadline=None)
@given(x=pixel, eps=radius, share=st.floats(0, 1))
def test_bounds_are_rounded_inward_and_no_further_than_one_step(x: float, eps: float, share: float) -> None:
    lo, hi = (float(t) for t in ThreatModel(norm="linf", eps=eps).bounds(torch.tensor([[x]])))
    assert 0 <= lo <= x <= hi <= 1
    assert x - lo <= eps
    assert hi - x <= eps
    # One float32 further out would be outside box or ball: nothing is given away.
    further = float(np.nextafter(np.float32(lo), np.float32(-1))), float(np.nextafter(np.float32(hi), np.float32(2)))
    assert further[0] < 0 or x - further[0] > eps - 3e-16  # but for the rounding of float64 itself
    assert further[1] > 1 or further[1] - x > eps - 3e-16
    between = float(np.float32(lo + share * (hi - lo)))
    if lo <= between <= hi:
        assert ThreatModel(norm="linf", eps=eps).contains(torch.tensor([[between]]), torch.tensor([[x]])).all()


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    dim=st.integers(1, 40),
    norm=st.sampled_from(["linf", "l2", "l1"]),
    eps=st.one_of(st.floats(1e-6, 3), st.just(0.0)),
    scale=st.sampled_from([1e-3, 1.0, 50.0]),
)
def test_projected_points_are_inside_without_slack(data: Any, dim: int, norm: Any, eps: float, scale: float) -> None:
    numbers = torch.Generator().manual_seed(data.draw(st.integers(0, 2**30)))
    x = torch.rand(3, 1, dim, 1, generator=numbers)
    x[0] = x[0].round()
    points = x + scale * torch.randn(x.shape, generator=numbers)
    threat = ThreatModel(norm=norm, eps=eps)
    inside = threat.project(points, x)
    assert inside.dtype == torch.float32
    assert threat.contains(inside, x).all()
    # A point that is inside already stays where it is, but for rounding.
    again = threat.project(inside, x)
    assert (again - inside).abs().max() <= 1e-6 * max(eps, 0.1)


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("dim", [3, 784, 150528])
def test_projection_ends_on_the_sphere(norm: Any, eps: float, dim: int) -> None:
    """Away from the box, a point outside lands at the radius, but for one float32 step a value."""
    numbers = torch.Generator().manual_seed(dim)
    x = 0.4 + 0.2 * torch.rand(2, dim, generator=numbers)
    direction = torch.randn(x.shape, generator=numbers)
    threat = ThreatModel(norm=norm, eps=eps)
    reach = (
        0.3
        if norm == "linf"
        else 0.3
        / float(direction.abs().max())
        * float(torch.linalg.vector_norm(direction[0], 2 if norm == "l2" else 1))
    )
    if eps >= reach:
        pytest.skip("the box would be active")
    points = (
        x
        + direction
        / torch.linalg.vector_norm(direction, {"linf": torch.inf, "l2": 2, "l1": 1}[norm], dim=1, keepdim=True)
        * eps
        * 5
    )
    distance = threat.distance(threat.project(points, x), x)
    resolution = 6e-8 * {"linf": 1, "l2": dim**0.5, "l1": dim}[norm]  # one float32 step a value, in this norm
    assert (distance <= eps).all()
    assert (distance >= 0.999 * eps - resolution).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "unbounded"])
def test_distance_is_numpys_in_float64(norm: Any) -> None:
    x, points = (torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    d = (points.numpy().astype(np.float64) - x.numpy().astype(np.float64)).reshape(4, -1)
    order = {"linf": np.inf, "unbounded": np.inf, "l2": 2, "l1": 1}[norm]
    eps = None if norm == "unbounded" else 1.0
    distance = ThreatModel(norm=norm, eps=eps).distance(points, x)
    assert distance.dtype == torch.float64
    assert distance.numpy() == pytest.approx(np.linalg.norm(d, order, axis=1), rel=1e-14)


def test_contains_knows_no_slack() -> None:
    x = torch.full((1, 2), 0.5)
    threat = ThreatModel(norm="linf", eps=0.25)
    assert threat.contains(torch.tensor([[0.75, 0.25]]), x).item()
    assert not threat.contains(torch.tensor([[0.75000006, 0.5]]), x).item()
    assert not ThreatModel(norm="l2", eps=0.25).contains(torch.tensor([[0.75, 0.5001]]), x).item()
    assert not ThreatModel(norm="l1", eps=0.25).contains(torch.tensor([[0.7, 0.4]]), x).item()
    for norm in ("linf", "l2", "l1", "unbounded"):
        wide = ThreatModel(norm=norm, eps=None if norm == "unbounded" else 100.0)  # pyright: ignore[reportArgumentType]
        for bad in (-1e-7, 1.0000001, float("nan"), float("inf"), float("-inf")):
            assert not wide.contains(torch.tensor([[bad, 0.5]]), x).item(), (norm, bad)
        assert wide.contains(torch.tensor([[0.0, 1.0]]), x).item()


def test_broken_by_goal() -> None:
    logits = torch.tensor([[9.0, 8, 7, 6, 5, 4, 3], [3.0, 4, 5, 6, 7, 8, 9]])
    y = torch.tensor([0, 0])
    assert ThreatModel(goal="top1").broken(logits, y).tolist() == [False, True]
    assert ThreatModel(goal="top5").broken(logits, y).tolist() == [False, True]
    assert ThreatModel(goal="top5").broken(logits, torch.tensor([4, 2])).tolist() == [False, False]
    assert ThreatModel(goal="top5").broken(logits, torch.tensor([5, 1])).tolist() == [True, True]
    for bad in (float("nan"), float("inf"), float("-inf")):
        spoilt = logits.clone()
        spoilt[0, 0] = bad
        for goal in ("top1", "top5"):
            assert ThreatModel(goal=goal).broken(spoilt, torch.tensor([0, 6])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("norm", "eps"), [("unbounded", 0.1), ("linf", None), ("l2", -0.1), ("l1", float("inf")), ("linf", float("nan"))]
)
def test_a_radius_that_means_nothing_is_refused(norm: Any, eps: float | None) -> None:
    with pytest.raises(ValueError, match=f"norm={norm}"):
        ThreatModel(norm=norm, eps=eps)


def test_several_radii_have_one_form() -> None:
    threat = ThreatModel(norm="l2", eps=(0.5, 0.25, 2.0))
    assert threat == ThreatModel(norm="l2", eps=(0.25, 0.5, 2.0))
    assert (threat.eps, threat.radii, threat.radius) == ((0.25, 0.5, 2.0), (0.25, 0.5, 2.0), 2.0)
    assert threat.balls() == tuple(ThreatModel(norm="l2", eps=eps) for eps in (0.25, 0.5, 2.0))
    assert ThreatModel(eps=(0.25,)) == ThreatModel(eps=0.25)
    assert ThreatModel(eps=0.25).balls() == (ThreatModel(eps=0.25),)
    assert ThreatModel(norm="unbounded", eps=None).radii == (float("inf"),)
    x = torch.zeros(1, 4)
    assert threat.contains(x + 0.9, x).item(), "what is asked of all is answered for the largest"


@pytest.mark.parametrize("eps", [(), (0.1, 0.1), (0.1, -0.2), (0.1, float("nan")), (0.1, float("inf"))])
def test_radii_that_mean_nothing_are_refused(eps: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="eps"):
        ThreatModel(norm="linf", eps=eps)
    with pytest.raises(ValueError, match="eps"):
        ThreatModel(norm="unbounded", eps=(*eps, 1.0))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "unbounded"])
def test_bounds_say_the_same_as_distances(norm: Any) -> None:
    """``within`` is ``contains``, also a rounding beside the bounds, outside the box and for what is not finite."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(400, 1, 3, 3, generator=generator)
    x[::3] = x[::3].round()
    radius = {"linf": 0.1, "l2": 0.2, "l1": 0.5, "unbounded": None}[norm]
    threat = ThreatModel(norm=norm, eps=radius)
    lo, hi = threat.bounds(x)
    points = threat.project(x + 0.3 * torch.randn(x.shape, generator=generator), x)
    at = torch.arange(400)
    moved = points.flatten(1)
    up, down = torch.full_like(moved, 2.0), torch.full_like(moved, -2.0)
    moved = torch.where((at % 4 == 1)[:, None], moved.nextafter(up), moved)
    moved = torch.where((at % 4 == 2)[:, None], moved.nextafter(down), moved)
    for row, value in ((3, torch.nan), (7, torch.inf), (11, -torch.inf)):
        moved[row, 4] = value
    points = moved.view_as(x)
    due = threat.contains(points, x)
    assert 0 < int(due.sum()) < 400
    assert torch.equal(threat.within(points, x, lo, hi), due)
