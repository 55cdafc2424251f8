"""Attacks of other libraries as the engine runs them: counted, seeded, brought into the threat, verified."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks.base import WholeBatch
from robusteval.closed_form import Linear, linear_problem, small_convnet
from robusteval.engine.direct import search
from robusteval.engine.whole import brought_inside
from robusteval.errors import UserError
from robusteval.threat import ThreatModel

LINF = ThreatModel(norm="linf", eps=0.1)


@dataclass(frozen=True, kw_only=True)
class Given(WholeBatch):
    """Does what a test says: ``does`` gets network, images, labels, radius and seed."""

    does: Callable[..., Any]
    told: bool = True

    method: ClassVar[str] = "given"
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2", "l1"})

    def bounded(self) -> bool:
        return self.told

    def library(self) -> str | None:
        return "stub 1.0"

    def run(self, network: nn.Module, x: Tensor, y: Tensor, *, norm: str, eps: float, seed: int) -> Tensor:
        return self.does(network, x, y, eps, seed)


def pictures(n: int = 6) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def attacked(does: Callable[..., Any], *, told: bool = True, network: nn.Module | None = None, **options: Any) -> Any:
    network = small_convnet() if network is None else network
    with torch.no_grad():
        labels = network(pictures()).argmax(1)
    return search(Given(does=does, told=told), network, pictures(), labels, LINF, **options)


def optimal(problem: Any, factor: float) -> Callable[..., Tensor]:
    """Return an attack that goes ``factor`` times the optimal distance along the weights of a linear model."""
    towards = torch.where(problem.labels == 0, -1.0, 1.0).view(-1, 1, 1, 1)
    step = factor * problem.radius * towards * problem.module.weight.float().sign()
    return lambda network, x, y, eps, seed: x + step


def test_what_it_returns_is_verified_and_nothing_else_counts() -> None:
    problem = linear_problem("linf", (1, 4, 4), n=6, radius=0.1)
    threat = ThreatModel(norm="linf", eps=1.05 * problem.radius)
    for factor, broken in ((0.99, False), (1.01, True)):
        board = search(Given(does=optimal(problem, factor)), problem.module, problem.images, problem.labels, threat)
        assert board.broken.tolist() == [broken] * 6
        assert board.outside == 0


def test_a_point_that_fools_outside_the_threat_is_no_break() -> None:
    """The threat ends at 0.99 of the optimum: projected there, the point 1 % beyond it fools no more."""
    problem = linear_problem("linf", (1, 4, 4), n=6, radius=0.1)
    threat = ThreatModel(norm="linf", eps=0.99 * problem.radius)
    attack = Given(does=optimal(problem, 1.01))
    assert bool(
        (problem.module(optimal(problem, 1.01)(None, problem.images, 0, 0, 0)).argmax(1) != problem.labels).all()
    )
    board = search(attack, problem.module, problem.images, problem.labels, threat)
    assert not board.broken.any()
    assert board.outside == 6


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5), ("l1", 2.0)])
def test_a_point_outside_by_rounding_is_brought_back_and_not_lost(norm: Any, eps: float) -> None:
    threat = ThreatModel(norm=norm, eps=eps)
    x = torch.full((5, 1, 8, 8), 0.5)
    d = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    size = {"linf": d.abs().amax((1, 2, 3)), "l2": d.pow(2).sum((1, 2, 3)).sqrt(), "l1": d.abs().sum((1, 2, 3))}[norm]
    for over, outside in ((3e-7, 0), (1e-3, 5)):
        points = (x + d * ((eps + over) / size).view(-1, 1, 1, 1)).float()
        assert not threat.contains(points, x).any()
        back, count = brought_inside(points, x, threat)
        assert threat.contains(back, x).all()
        assert count == outside
        assert (back - points).abs().max() <= 2 * max(over, 1e-6)
    inside = (x + d * (0.9 * eps / size).view(-1, 1, 1, 1)).float()
    assert torch.equal(brought_inside(inside, x, threat)[0], inside)


def test_points_out_of_the_box_or_not_finite() -> None:
    x = torch.full((3, 1, 2, 2), 0.95)
    points = x.clone()
    points[0, 0, 0, 0] = 1.01
    points[1, 0, 0, 0] = torch.nan
    back, count = brought_inside(points, x, LINF)
    assert count == 2
    assert LINF.contains(back, x).tolist() == [True, False, True]
    board = attacked(lambda network, x, y, eps, seed: x * torch.nan)
    assert not board.broken.any()
    assert not board.moved.any()
    assert torch.equal(board.point, pictures())


def test_an_attack_that_is_not_told_the_radius_may_return_far_points() -> None:
    assert attacked(lambda network, x, y, eps, seed: 1 - x, told=True).outside == 6
    board = attacked(lambda network, x, y, eps, seed: 1 - x, told=False)
    assert board.outside == 0
    assert LINF.contains(board.point, pictures()).all()


def test_the_passes_of_all_calls_are_counted_and_shared_out() -> None:
    def passes(network: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        network(x)  # 6 forward
        some = x[:4].clone().requires_grad_()
        logits = network(some)  # 4 forward
        torch.autograd.grad(logits.sum(), some, retain_graph=True)  # 4 backward
        torch.autograd.grad(logits[:, 0].sum(), some)  # 4 backward
        with torch.no_grad():
            network(x[:1])  # 1 forward
        return x

    board = attacked(passes)
    # Of 11 rows each sample has one, five a second; the verifier's pass makes one more for each.
    assert board.forward.tolist() == [3, 3, 3, 3, 3, 2]
    assert board.backward.tolist() == [2, 2, 1, 1, 1, 1]


def test_only_the_samples_that_entered_are_given_in_order_of_position() -> None:
    seen = []

    def look(network: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        seen.append((x.clone(), eps))
        return x

    board = attacked(look, order=[4, 1, 2])
    assert len(seen) == 1
    assert torch.equal(seen[0][0], pictures()[[1, 2, 4]])
    assert seen[0][1] == LINF.radius
    assert board.forward.tolist() == [0, 1, 1, 0, 1, 0]
    assert attacked(look, order=[]).outside is None
    assert len(seen) == 1


def test_global_generators_are_seeded_for_the_call_and_restored() -> None:
    drawn = []

    def draw(network: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        drawn.append((torch.rand(1).item(), float(np.random.rand()), random.random(), seed))
        return x

    def state() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # pyright: ignore

    network = small_convnet()  # which draws its weights
    before = state()
    attacked(draw, network=network, seed=1)
    attacked(draw, network=network, seed=1)
    attacked(draw, network=network, seed=2)
    attacked(draw, network=network, seed=1, ids=[100, 101, 102, 103, 104, 105])
    attacked(draw, network=network, seed=1, order=[3, 4])
    assert state() == before
    assert drawn[0] == drawn[1] == drawn[4], "the same chunk, whoever stands in it"
    assert len({row for column in (drawn[0], drawn[2], drawn[3]) for row in column}) == 12


def test_the_network_comes_back_as_it_was() -> None:
    def meddle(network: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        network.train()
        network(x.clone().requires_grad_()).sum().backward()
        return x

    network = small_convnet().train()
    first = next(network.parameters())
    first.requires_grad_(False)
    before = [(part.training, len(part._forward_hooks)) for part in network.modules()]
    x, y = pictures(), torch.zeros(6, dtype=torch.long)
    search(Given(does=meddle), network, x, y, LINF, order=range(6))
    assert [(part.training, len(part._forward_hooks)) for part in network.modules()] == before
    assert all(parameter.grad is None for parameter in network.parameters())
    assert [parameter.requires_grad for parameter in network.parameters()][:2] == [False, True]
    assert torch.equal(x, pictures())


def test_the_network_is_in_eval_mode_answers_float32_and_never_meets_a_batch_of_one() -> None:
    sizes = []

    class Sizes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = small_convnet()

        def forward(self, images: Tensor) -> Tensor:
            sizes.append((len(images), images.dtype, self.training))
            return self.network(images)

    def one_by_one(network: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        assert all(network(row[None].double()).dtype == torch.float32 for row in x)
        return x

    attacked(one_by_one, network=Sizes().train())
    assert {(size % 16, dtype, training) for size, dtype, training in sizes[1:]} == {(0, torch.float32, False)}


def test_what_fails_is_told_in_a_sentence() -> None:
    def fails(*_: Any) -> Tensor:
        raise ValueError("steps must be positive\nand more")

    with pytest.raises(UserError, match=r"attack=given raised ValueError: steps must be positive; .* stub 1.0"):
        attacked(fails)
    with pytest.raises(UserError, match=r"attack=given returned \[3, 1, 8, 8\] where .* \[6, 1, 8, 8\] are due"):
        attacked(lambda network, x, y, eps, seed: x[:3])
    with pytest.raises(UserError, match="attack=given returned NoneType"):
        attacked(lambda network, x, y, eps, seed: None)
    detached = Detached(small_convnet())
    with pytest.raises(UserError, match="do not depend differentiably on the image"):
        attacked(lambda network, x, y, eps, seed: network(x.requires_grad_()), network=detached)
    with pytest.raises(UserError, match="forward pass raised"):
        attacked(lambda network, x, y, eps, seed: network(x[:, :, :3, :3].flatten()))


class Detached(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).detach()


def test_a_detached_network_serves_an_attack_without_gradients() -> None:
    assert not attacked(lambda network, x, y, eps, seed: x, network=Detached(small_convnet())).broken.any()


def test_an_interrupt_at_a_pass_gets_through() -> None:
    from robusteval.engine.whole import propose

    def stop() -> None:
        raise KeyboardInterrupt

    network = Linear(torch.ones(1, 8, 8), 0.0, 2)
    attack = Given(does=lambda network, x, y, eps, seed: network(x))
    with pytest.raises(KeyboardInterrupt):
        propose(attack, network, pictures(), torch.zeros(6), LINF, seed=0, beat=stop)
