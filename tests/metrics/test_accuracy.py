"""Intervals against published ones, rates by class by hand."""

import numpy as np
import pytest

from robusteval.metrics.accuracy import disparity, per_class, rate, wilson


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_score_intervals(k: int, n: int, low: float, high: float) -> None:
    """Newcombe 1998, Two-sided confidence intervals for the single proportion, Table I, method 3."""
    assert wilson(k, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize("n", [1, 7, 500, 50000])
def test_wilson_solves_its_quadratic(n: int) -> None:
    """Its ends are where |k/n - p| is 1.96 standard errors of p, not of k/n."""
    for k in {0, 1, n // 3, n - 1, n}:
        for end in wilson(k, n):
            if 0 < end < 1:
                assert abs(k / n - end) == pytest.approx(1.959963984540054 * np.sqrt(end * (1 - end) / n))


def test_wilson_is_exact_at_the_ends_and_says_nothing_of_nothing() -> None:
    assert wilson(0, 9)[0] == 0.0
    assert wilson(9, 9)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


def test_rate_counts() -> None:
    got = rate(np.array([True, False, True, True]))
    low, high = wilson(3, 4)
    assert got == {"value": 0.75, "low": low, "high": high, "correct": 3, "n": 4}
    assert rate(np.array([], dtype=bool)) == {"value": None, "low": 0.0, "high": 1.0, "correct": 0, "n": 0}


def test_per_class_names_what_is_there_and_leaves_out_what_is_not() -> None:
    labels = np.array([2, 0, 2, 2, 0])
    correct = np.array([True, True, False, True, True])
    rows = per_class(labels, correct, ["cat", "dog", "owl"])
    assert [(r["class"], r["name"], r["value"], r["correct"], r["n"]) for r in rows] == [
        (0, "cat", 1.0, 2, 2),
        (2, "owl", 2 / 3, 2, 3),
    ]
    assert (rows[1]["low"], rows[1]["high"]) == wilson(2, 3)
    assert "name" not in per_class(labels, correct)[0]


def test_disparity_by_hand() -> None:
    rates = [{"class": c, "value": v} for c, v in ((0, 0.9), (3, 0.5), (4, 0.5), (7, 0.7))]
    assert disparity(rates) == {
        "max": 0.9,
        "min": 0.5,
        "range": pytest.approx(0.4),
        "sd": pytest.approx(np.sqrt((0.25**2 + 0.15**2 + 0.15**2 + 0.05**2) / 4)),
        "worst_class": 3,
    }
    assert set(disparity([]).values()) == {None}
