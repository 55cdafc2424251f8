"""A minimum-norm attack keeps the nearest adversarial that the verifier confirms, wherever it lies in the box."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks.base import Attack, Job, Query, State, Steps
from robusteval.engine.board import Board
from robusteval.engine.direct import search
from robusteval.engine.jobs import Chunk
from robusteval.engine.passes import Passes
from robusteval.engine.search import Searcher, point_of
from robusteval.engine.stages import stages_of
from robusteval.threat import Norm, ThreatModel


class Threshold(nn.Module):
    """Class 1 from ``height`` on in the first pixel."""

    def __init__(self, height: float) -> None:
        super().__init__()
        self.height = height

    def forward(self, images: Tensor) -> Tensor:
        gap = images.flatten(1)[:, 0] - self.height
        return torch.stack([-gap, gap], 1)


@dataclass(frozen=True, kw_only=True)
class Visits(Attack):
    """Proposes images whose first two pixels are moved by so much, one after another."""

    moves: tuple[tuple[float, float], ...] = ()

    method: ClassVar[str] = "visits"
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2", "l1", "unbounded"})
    keeps: ClassVar[Literal["first", "nearest"]] = "nearest"

    def start(self, job: Job) -> State:
        assert job.eps.isinf().all()
        assert (job.lo == 0).all()
        assert (job.hi == 1).all()
        return State(x=job.x.clone(), taken=torch.zeros_like(job.y))

    def iterate(self, state: State) -> Steps:
        moves = torch.tensor(self.moves)[state.taken]
        points = state.x.clone()
        points[:, 0, 0, :2] += moves
        yield Query(points=points)
        state.taken = state.taken + 1
        return state.taken >= len(self.moves)


MOVES = ((0.0, 0.0), (0.4, 0.0), (0.3, 0.0), (0.15, 0.0), (0.25, 0.2), (0.45, 0.0), (0.3, -0.9), (0.22, float("nan")))


def visited(norm: Norm, eps: float | None, moves: Any = MOVES, **options: Any) -> Board:
    images, labels = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.long)
    return search(Visits(moves=moves), Threshold(0.7), images, labels, ThreatModel(norm=norm, eps=eps), **options)


@pytest.mark.parametrize("stop", ["first", "never"])
@pytest.mark.parametrize(
    ("norm", "eps", "nearest", "distance"),
    [
        # By hand, of the moves that raise the first pixel by 0.2 and stay in the box.
        ("linf", 0.3, (0.25, 0.2), 0.25),
        ("l2", 0.3, (0.3, 0.0), 0.3),
        ("l1", 0.3, (0.3, 0.0), 0.3),
        ("unbounded", None, (0.25, 0.2), 0.25),  # measured in Linf, as ThreatModel.distance says
    ],
)
def test_the_nearest_of_all_adversarials_in_the_norm_is_kept(
    norm: Norm, eps: float | None, nearest: tuple[float, float], distance: float, stop: Any
) -> None:
    board = visited(norm, eps, stop=stop)
    assert board.distance is not None
    torch.testing.assert_close(board.distance, torch.full((3,), distance, dtype=torch.float64))
    torch.testing.assert_close(board.point[:, 0, 0, :2] - 0.5, torch.tensor([nearest] * 3))
    assert int(board.forward[0]) > len(MOVES) - 1, "no success ended the search"


def test_a_sample_is_broken_if_its_nearest_adversarial_lies_inside_the_radius() -> None:
    for eps, broken in ((0.0, False), (0.24, False), (0.26, True), (2.0, True)):
        board = visited("linf", eps)
        assert board.broken.tolist() == [broken] * 3
        assert board.moved.all(), "the nearest is kept even outside the ball"


def test_where_nothing_is_found_the_clean_image_stays_at_no_distance() -> None:
    board = visited("linf", 0.3, moves=((0.1, 0.0), (0.19, 0.3), (0.6, 0.0)))
    assert board.distance is not None
    assert board.distance.isinf().all()
    assert not board.broken.any()
    assert not board.moved.any()
    assert (board.point == 0.5).all()


def test_a_sample_that_is_wrong_already_is_at_distance_nought() -> None:
    images, labels = torch.full((2, 1, 2, 2), 0.5), torch.tensor([1, 0])
    threat = ThreatModel(norm="l2", eps=0.5)
    board = search(Visits(moves=MOVES), Threshold(0.7), images, labels, threat, stop="never")
    assert board.distance is not None
    assert board.distance.tolist() == [0.0, pytest.approx(0.3)]
    assert board.broken.tolist() == [True, True]


def test_only_what_the_verifier_confirms_counts() -> None:
    """The oracle calls everything from 0.55 on adversarial, the model as given from 0.72 on."""
    images, labels = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.long)
    verifier = Passes(module=Threshold(0.72), batch=16)
    searcher = Searcher(
        oracles={"float32": Passes(module=Threshold(0.55), batch=16)},
        verifier=verifier,
        seed=0,
        slots=16,
        stop="first",
        tick=lambda settled: None,
    )
    chunk = Chunk(images=images, labels=labels, logits=verifier.logits(images), ids=np.arange(3))
    moves = ((0.4, 0.0), (0.1, 0.0), (0.21, 0.0), (0.3, 0.0), (0.35, 0.0))
    (stage,) = stages_of(Visits(moves=moves), ThreatModel(norm="linf", eps=0.31))
    board = searcher.run(stage, chunk, range(3))
    assert board.distance is not None
    torch.testing.assert_close(board.distance, torch.full((3,), 0.3, dtype=torch.float64))
    assert board.rejected == 6
    assert board.forward.tolist() == [5 + 4] * 3  # four of the five were nearer than what was kept
    assert board.broken.all()


def test_which_point_is_kept_is_a_function_of_attack_and_stop() -> None:
    from robusteval.attacks.pgd import PGD
    from robusteval.attacks.solarize import Solarize

    assert point_of(Visits(), "first") == point_of(Visits(), "never") == "nearest"
    assert point_of(PGD(), "first") == "first_success"
    assert point_of(PGD(), "never") == "max_loss"
    assert point_of(Solarize(mode="exhaustive"), "first") == "max_loss"


def test_a_search_for_a_first_success_knows_ball_and_radius() -> None:
    seen: list[Callable[[], Tensor]] = []

    class First(Visits):
        keeps: ClassVar[Literal["first", "nearest"]] = "first"

        def start(self, job: Job) -> State:
            seen.append(lambda: torch.stack([job.eps.max(), job.hi.max()]))
            return State(x=job.x.clone(), taken=torch.zeros_like(job.y))

    images, labels = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.long)
    board = search(First(moves=MOVES), Threshold(0.7), images, labels, ThreatModel(norm="linf", eps=0.31))
    torch.testing.assert_close(seen[0](), torch.tensor([0.31, 0.81]))
    assert board.distance is None
    assert float(board.point[0, 0, 0, 0]) == pytest.approx(0.8), "the first success inside the ball, not the nearest"


def test_no_field_of_the_contract_is_lost() -> None:
    assert Attack.keeps == "first"
    assert {field.name for field in dataclasses.fields(Visits)} == {"moves"}
