"""Ranks and ties against a count by hand, and the tests behind them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, hypergeom, norm

from robusteval.leaderboard.board import Place, boards, order, ranks
from robusteval.leaderboard.protocol import _departs, apart
from robusteval.leaderboard.rows import Row, of_entry
from robusteval.published import robustbench


def test_published_entries_are_ranked_with_their_ties() -> None:
    (found,) = boards([], against="robustbench", dataset="cifar10", norm="linf")
    assert len(found.rows) == 99
    assert [row.name for row in found.rows] == [entry.name for entry in robustbench.board("cifar10", "Linf")]
    values = np.array([row.robust for row in found.rows])
    assert (np.diff(values) <= 0).all()
    for number in (0, 1, 15, 16, 50, 98):
        z = (values - values[number]) / np.sqrt(
            (values * (1 - values) + values[number] * (1 - values[number])) / 1e4 + 1e-300
        )
        better, worse = (z > norm.ppf(0.975)).sum(), (z < norm.ppf(0.025)).sum()
        due = Place(rank=1 + int((values > values[number]).sum()), low=1 + int(better), high=99 - int(worse))
        assert found.places[number] == due
    assert found.places[15].rank == found.places[16].rank == 16  # two entries of 64.20 %
    assert found.places[17].rank == 18


def test_external_comes_first_and_is_said() -> None:
    entry = robustbench.find("cifar10", "Linf", "Xiao2020Enhancing")
    assert entry is not None
    row = of_entry(entry)
    assert (row.robust, row.by, row.marks) == (pytest.approx(0.074), "external", "†")
    assert row.differences == ("external; AutoAttack 18.50 %", "eps 0.031, not 8/255")
    assert row.doubts == ("AutoAttack unreliable, says RobustBench",)
    plain = robustbench.find("cifar10", "Linf", "Wong2020Fast")
    assert plain is not None
    assert (of_entry(plain).by, of_entry(plain).notes) == ("AutoAttack", ())


def test_runs_on_the_same_images_are_compared_pair_by_pair(row: Callable[..., Row]) -> None:
    """21 images of 1000 that only one survives: not to be told apart unpaired, but by exact McNemar."""
    first, second, other = (np.arange(1000) < k for k in (600, 580, 580))
    other = np.roll(other, 300)  # as many, on other images
    rows = order([row("a", first), row("b", second), row("c", other)])
    assert not apart(0.6, 1000, 0.58, 1000)
    assert binomtest(20, 20, 0.5).pvalue < 0.05
    only = [int((first & ~other).sum()), int((other & ~first).sum())]
    assert binomtest(only[0], sum(only), 0.5).pvalue > 0.05
    places = dict(zip((found.name for found in rows), ranks(rows), strict=True))
    assert places == {
        "a": Place(rank=1, low=1, high=2),
        "b": Place(rank=2, low=2, high=3),
        "c": Place(rank=2, low=1, high=3),
    }


def test_runs_on_other_images_are_compared_as_two_samples(row: Callable[..., Row]) -> None:
    first, second = (np.arange(1000) < k for k in (600, 580))
    rows = [row("a", first, ids=range(1000)), row("b", second, ids=range(1, 1001))]
    assert ranks(rows) == (Place(rank=1, low=1, high=2), Place(rank=2, low=1, high=2))


def test_what_is_not_comparable_has_no_rank_and_takes_none(row: Callable[..., Row]) -> None:
    rows = order([row("a", 600, n=1000), row("weak", 900, n=1000, attack={"name": "fgsm"}), row("b", 100, n=1000)])
    assert [found.name for found in rows] == ["weak", "a", "b"]
    assert ranks(rows) == (Place(), Place(rank=1, low=1, high=1), Place(rank=2, low=2, high=2))


@pytest.mark.parametrize(("k", "n"), [(280, 400), (262, 400), (6731, 10_000), (6731 + 11, 10_000), (6731 - 9, 10_000)])
def test_a_subset_departs_where_the_hypergeometric_says_so(k: int, n: int) -> None:
    """Of 10 000 images of which 6731 stand; a tenth of a point is what rounding and the attack's seeds move."""
    low, high = hypergeom(10_000, 6731, n).interval(0.95)
    due = not low <= k <= high and abs(k / n - 0.6731) > 0.001
    assert _departs(k, n, 0.6731, 10_000, nested=True) == due


def test_chance_alone_departs_in_five_of_a_hundred() -> None:
    """Over all subsets of 400 of the published images, by the probability of each count: at most 5 %, not far less."""
    drawn: Any = hypergeom(10_000, 6731, 400)
    counts = range(230, 310)
    wrong = sum(drawn.pmf(k) for k in counts if _departs(k, 400, 0.6731, 10_000, nested=True))
    assert drawn.cdf(229) + drawn.sf(309) < 1e-4
    assert 0.03 < wrong <= 0.05


def test_images_that_are_not_the_boards_are_a_sample_of_their_own() -> None:
    assert not _departs(640, 1000, 0.6731, 10_000, nested=None)
    for k in (640, 641, 644, 660, 705):
        assert _departs(k, 1000, 0.6731, 10_000, nested=False) == apart(k / 1000, 1000, 0.6731, 10_000)
    assert _departs(640, 1000, 0.6731, 10_000, nested=False)
