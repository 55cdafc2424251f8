"""Nothing that the engine keeps lies outside the box or the budget, measured in float64 without any slack."""

from typing import Any

import pytest
import torch
from torch import Tensor

from robusteval.closed_form import small_convnet
from robusteval.engine.direct import search

# The last is larger than the box in every norm.
RADII = {"linf": (0.0, 1e-6, 0.1, 8 / 255, 3.0), "l2": (0.0, 1e-6, 0.1, 0.5, 40.0), "l1": (0.0, 1e-6, 0.1, 2.0, 300.0)}


def pictures() -> Tensor:
    """Images [12, 1, 8, 8]: black, white, both corners mixed, on the 8-bit grid, and anywhere."""
    numbers = torch.Generator().manual_seed(1)
    anywhere = torch.rand(4, 1, 8, 8, generator=numbers)
    mixed = (torch.rand(3, 1, 8, 8, generator=numbers) < 0.5).float()
    grey = (torch.rand(3, 1, 8, 8, generator=numbers) * 255).round() / 255
    return torch.cat([torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8), mixed, grey, anywhere])


def excess(points: Tensor, x: Tensor, norm: str, eps: float | None) -> float:
    """Return by how much the worst point leaves box or ball: written here anew, in float64."""
    p, d = points.double().flatten(1), (points.double() - x.double()).flatten(1)
    over = [float(p.max() - 1), float(-p.min())]
    size = {"linf": lambda: d.abs().max(1).values, "l2": lambda: (d * d).sum(1).sqrt(), "l1": lambda: d.abs().sum(1)}
    if eps is not None:
        over.append(float((size[norm]() - eps).max()))
    assert bool(points.isfinite().all())
    return max(over)


@pytest.mark.parametrize("stop", ["first", "never"])
def test_nothing_leaves_box_or_budget(case_in_norm: Any, stop: Any) -> None:
    network, images = small_convnet(), pictures()
    labels = network(images).argmax(1)
    survey = case_in_norm.attack.columns() is not None
    if survey and stop == "never":
        pytest.skip("a survey stops at nothing anyway")
    radii = RADII.get(case_in_norm.norm, (None,))
    cascade = len(case_in_norm.attack.stages(case_in_norm.norm)) > 1
    if cascade and (stop == "never" or getattr(case_in_norm.attack, "version", "standard") != "standard"):
        pytest.skip("its stages have cases of their own; one cascade shows how they follow one another")
    if not case_in_norm.leads:
        radii = radii[1:3] if stop == "first" else radii[2:3]  # the others with each attack's first options
    for eps in radii[2:4] if survey and case_in_norm.norm != "unbounded" else radii:
        board = search(case_in_norm.attack, network, images, labels, case_in_norm.within(eps), stop=stop)
        if case_in_norm.attack.keeps == "nearest":
            # The nearest adversarial may lie outside the ball, and then does not count as a break.
            assert excess(board.point, images, case_in_norm.norm, None) <= 0
            inside = [
                excess(board.point[[i]], images[[i]], case_in_norm.norm, eps) <= 0 and bool(board.moved[i])
                for i in range(len(images))
            ]
            assert board.broken.tolist() == inside
        else:
            assert excess(board.point, images, case_in_norm.norm, eps) <= 0
        if eps == 0:
            assert case_in_norm.attack.keeps == "nearest" or torch.equal(board.point, images)
            assert not board.broken.any()
        elif case_in_norm.attack.stages(case_in_norm.norm) and not case_in_norm.attack.own_set and eps != 1e-6:
            assert board.moved.any(), "a test in which nothing moves proves nothing"


def test_a_point_outside_is_never_kept_even_if_an_attack_proposes_it() -> None:
    from robusteval.attacks.base import Query, State
    from robusteval.attacks.noise import Noise
    from robusteval.threat import ThreatModel

    class Outside(Noise):
        def start(self, job: Any) -> State:
            return State(x=job.x + 2 * job.eps.view(-1, 1, 1, 1))

        def iterate(self, state: State) -> Any:
            yield Query(points=state.x)
            yield Query(points=torch.full_like(state.x, torch.nan))
            return torch.ones(len(state.x), dtype=torch.bool)

    network, images = small_convnet(), pictures()
    labels = network(images).argmax(1)
    for norm, eps in (("linf", 0.2), ("l2", 2.0), ("l1", 5.0)):
        threat = ThreatModel(norm=norm, eps=eps)  # pyright: ignore[reportArgumentType]
        board = search(Outside(), network, images, labels, threat, stop="never")
        assert not board.moved.any()
        assert torch.equal(board.point, images)
