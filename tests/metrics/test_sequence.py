"""The interval that holds at any time: against exact enumeration, and over simulated data sets stopped at will."""

import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from robusteval.metrics.sequence import bounds, reached

ALPHA = 0.05


def set_by_hand(k: int, n: int, total: int) -> list[int]:
    """Return every number of ones whose likelihood ratio stays below 1 / alpha, in exact fractions."""
    kept = []
    for ones in range(total + 1):
        if not k <= ones <= total - (n - k):
            continue
        likelihood = Fraction(comb(ones, k) * comb(total - ones, n - k), comb(total, n))
        mixture = sum(
            Fraction(comb(m, k) * comb(total - m, n - k), comb(total, n)) for m in range(total + 1)
        ) / Fraction(total + 1)
        if mixture / likelihood < Fraction(1) / Fraction(5, 100):
            kept.append(ones)
    return kept


@pytest.mark.parametrize("total", [1, 2, 7, 12])
def test_the_bounds_are_those_of_the_definition_in_exact_fractions(total: int) -> None:
    for n in range(total + 1):
        for k in range(n + 1):
            kept = set_by_hand(k, n, total)
            assert kept == list(range(kept[0], kept[-1] + 1)), "no gaps"
            assert bounds(k, n, total) == pytest.approx((kept[0] / total, kept[-1] / total))


@pytest.mark.parametrize("total", [6, 8])
def test_over_all_orders_the_bounds_ever_miss_the_truth_with_at_most_five_per_cent(total: int) -> None:
    """By enumeration of every order of every population: the promise itself, without chance."""
    for ones in range(total + 1):
        missed = orders = 0
        for places in itertools.combinations(range(total), ones):
            flags = np.zeros(total, dtype=int)
            flags[list(places)] = 1
            counts = flags.cumsum()
            inside = [bounds(int(counts[n - 1]), n, total) for n in range(1, total + 1)]
            missed += any(not low <= ones / total <= high for low, high in inside)
            orders += 1
        assert missed / orders <= ALPHA


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    """Return the bounds of 100 images for every (n, k)."""
    found = np.zeros((101, 101, 2))
    for n in range(1, 101):
        for k in range(n + 1):
            found[n, k] = bounds(k, n, 100)
    return found


@pytest.mark.parametrize("truth", [2, 20, 50, 95])
def test_of_2000_simulated_datasets_at_most_five_per_cent_are_ever_wrong(truth: int, table: np.ndarray) -> None:
    """Whenever somebody stops: the interval is looked at after every image."""
    rng = np.random.default_rng(truth)
    flags = np.zeros((2000, 100), dtype=np.int64)
    flags[:, :truth] = 1
    counts = rng.permuted(flags, axis=1).cumsum(1)
    low, high = np.moveaxis(table[np.arange(1, 101), counts], -1, 0)
    wrong = ((low > truth / 100) | (high < truth / 100)).any(1)
    assert wrong.mean() <= ALPHA
    assert (low[:, -1] == high[:, -1]).all(), "of all images the truth itself"


def test_wilson_looked_at_after_every_image_is_wrong_far_more_often() -> None:
    """So that the test above could fail."""
    from robusteval.metrics.accuracy import wilson

    rng = np.random.default_rng(0)
    flags = np.zeros((300, 300), dtype=np.int64)
    flags[:, :150] = 1
    counts = rng.permuted(flags, axis=1).cumsum(1)
    looked_at = range(10, 201, 10)
    wrong = [
        any(not wilson(int(row[n - 1]), n)[0] <= 0.5 <= wilson(int(row[n - 1]), n)[1] for n in looked_at)
        for row in counts
    ]
    assert np.mean(wrong) > 2 * ALPHA


def test_more_images_are_never_needed_than_there_are() -> None:
    assert bounds(0, 0, 10) == (0.0, 1.0)
    assert bounds(4, 10, 10) == (0.4, 0.4)
    low, high = bounds(400, 1000, 100_000)
    assert 0.34 < low < 0.4 < high < 0.46


@pytest.mark.parametrize(("k", "n", "total"), [(3, 2, 10), (-1, 2, 10), (1, 11, 10), (0, 0, 0)])
def test_impossible_counts_are_refused(k: int, n: int, total: int) -> None:
    with pytest.raises(ValueError, match="is due"):
        bounds(k, n, total)


@pytest.mark.parametrize(
    ("rules", "low", "high", "due"),
    [
        ({"width": 0.1}, 0.5, 0.6, "width"),
        ({"width": 0.1}, 0.5, 0.61, None),
        ({"below": 0.4}, 0.1, 0.39, "below"),
        ({"below": 0.4}, 0.1, 0.4, None),
        ({"above": 0.4}, 0.41, 0.9, "above"),
        ({"above": 0.4}, 0.4, 0.9, None),
        ({"below": 0.4, "above": 0.4}, 0.5, 0.9, "above"),
        ({}, 0.5, 0.5, None),
    ],
)
def test_a_rule_holds_once_the_interval_says_so(rules: dict, low: float, high: float, due: str | None) -> None:
    assert reached(rules, low, high) == due
