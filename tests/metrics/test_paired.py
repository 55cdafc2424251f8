"""Paired statistics against scipy, a bootstrap over images, a direct maximisation, and published or hand-made cases."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from robusteval.metrics.paired import (
    Counts,
    agreement,
    bootstrap,
    counts,
    difference,
    holm,
    kappa,
    mcnemar,
    paired,
    score_interval,
)

CASES = [Counts(60, 20, 5, 15), Counts(1, 1, 7, 12), Counts(0, 9, 0, 3), Counts(100, 0, 0, 20), Counts(7, 1, 0, 0)]


def flags(c: Counts) -> tuple[np.ndarray, np.ndarray]:
    rows = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], c, axis=0).astype(bool)
    return rows[:, 0], rows[:, 1]


def test_counts_are_of_pairs() -> None:
    first, second = np.array([1, 1, 0, 0, 1, 1], bool), np.array([1, 0, 1, 0, 0, 0], bool)
    assert counts(first, second) == Counts(both=1, only_first=3, only_second=1, neither=1)
    with pytest.raises(ValueError, match="same shape"):
        counts(first, second[:-1])


@pytest.mark.parametrize("c", CASES)
def test_mcnemar_is_scipys_exact_binomial_and_the_sum_of_the_tails(c: Counts) -> None:
    b, other = c.only_first, c.only_second
    assert mcnemar(c) == (binomtest(b, b + other).pvalue if b + other else 1.0)
    tails = min(1.0, 2 * sum(binom.pmf(k, b + other, 0.5) for k in range(min(b, other) + 1)))
    assert mcnemar(c) == pytest.approx(tails if b + other else 1.0)


@pytest.mark.parametrize("c", CASES[:3])
def test_the_bootstrap_over_counts_is_that_over_images(c: Counts) -> None:
    first, second = flags(c)
    rng = np.random.default_rng(1)
    rows = rng.integers(0, c.n, (20_000, c.n))
    by_images = np.quantile(first[rows].mean(1) - second[rows].mean(1), [0.025, 0.975])
    # Quantiles of a lattice of steps 1/n: one step of Monte Carlo error.
    assert bootstrap(c, difference, seed=3) == pytest.approx(by_images, abs=1 / c.n + 1e-9)
    p, q = first[rows].mean(1), second[rows].mean(1)
    observed = (first[rows] == second[rows]).mean(1)
    expected = p * q + (1 - p) * (1 - q)
    with np.errstate(invalid="ignore"):
        agreed = np.where(observed == 1, 1, (observed - expected) / (1 - expected))
    assert bootstrap(c, kappa, seed=3) == pytest.approx(np.quantile(agreed, [0.025, 0.975]), abs=0.03)


def test_the_bootstrap_depends_on_its_seed_alone() -> None:
    c = Counts(6000, 301, 287, 3412)
    assert bootstrap(c, kappa, seed=1) == bootstrap(c, kappa, seed=1) != bootstrap(c, kappa, seed=2)


def test_the_score_interval_is_the_published_one() -> None:
    # Airway responsiveness before and after transplantation (Bentur et al. 2009), by Tango's method in Fagerland,
    # Lydersen and Laake, Statistical Analysis of Contingency Tables, 2017, chapter 8.
    assert score_interval(Counts(1, 1, 7, 12)) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize("c", CASES[:3])
def test_the_score_interval_ends_where_a_score_test_refuses(c: Counts) -> None:
    n = c.n
    for end in score_interval(c):
        q = np.linspace(max(0, -end), (1 - end) / 2, 1_000_001)[1:-1]
        likely = (c.both + c.neither) * np.log(1 - 2 * q - end) + c.only_second * np.log(q)
        q = q[np.argmax(likely + c.only_first * np.log(q + end))]
        statistic = (c.only_first - c.only_second - n * end) / np.sqrt(n * (2 * q + end * (1 - end)))
        assert abs(statistic) == pytest.approx(norm.ppf(0.975), abs=1e-3)


def test_the_score_interval_is_known_where_nothing_differs_and_at_the_ends() -> None:
    z2 = norm.ppf(0.975) ** 2
    assert score_interval(Counts(90, 0, 0, 10)) == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2)))
    low, high = score_interval(Counts(0, 50, 0, 0))
    assert high == 1
    assert 0.8 < low < 1
    assert score_interval(Counts(0, 0, 50, 0)) == pytest.approx((-1, -low))
    assert score_interval(Counts(0, 0, 0, 0)) == (-1, 1)


def test_the_score_interval_covers() -> None:
    rng = np.random.default_rng(0)
    for cells in ((0.6, 0.15, 0.05, 0.2), (0.9, 0.04, 0.04, 0.02)):
        drawn = [score_interval(Counts(*row.tolist())) for row in rng.multinomial(60, cells, size=600)]
        hit = np.mean([low <= cells[1] - cells[2] <= high for low, high in drawn])
        assert 0.925 <= hit <= 0.985


@pytest.mark.parametrize(
    ("c", "expected"),
    [
        (Counts(5, 0, 0, 5), 1.0),  # fail together
        (Counts(0, 5, 5, 0), -1.0),  # never together
        (Counts(4, 2, 2, 1), 0.0),  # independent: 2/3 x 2/3 is 4/9
        (Counts(6, 1, 1, 2), (0.8 - 0.58) / (1 - 0.58)),
        (Counts(10, 0, 0, 0), 1.0),  # nothing could differ: 1, as in the authors' code
        (Counts(0, 0, 0, 10), 1.0),
        (Counts(0, 10, 0, 0), 0.0),  # agreement is impossible
    ],
)
def test_kappa_by_hand(c: Counts, expected: float) -> None:
    assert kappa(c) == pytest.approx(expected)


def test_agreement_lies_within_its_bounds() -> None:
    rng = np.random.default_rng(2)
    for cells in rng.integers(0, 9, (200, 4)) + np.array([1, 0, 0, 0]):
        c = Counts(*cells.tolist())
        p, q = (c.both + c.only_first) / c.n, (c.both + c.only_second) / c.n
        observed, _ = agreement(c)
        assert abs(p + q - 1) - 1e-12 <= observed <= 1 - abs(p - q) + 1e-12


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_all_of_it_is_plain_numbers_and_turns_with_the_order() -> None:
    first, second = flags(CASES[0])
    one, other = paired(first, second), paired(second, first)
    assert one["difference"]["value"] == pytest.approx(0.15)
    assert (one["difference"]["low"], one["difference"]["high"]) == pytest.approx(
        (-other["difference"]["high"], -other["difference"]["low"])
    )
    assert one["p"] == other["p"]
    assert one["consistency"]["kappa"] == pytest.approx(other["consistency"]["kappa"])
    assert {type(value) for value in (*one["difference"].values(), *one["consistency"].values())} == {float}
    empty = paired(np.zeros(0, bool), np.zeros(0, bool))
    assert empty["difference"]["value"] is None
    assert empty["consistency"]["low"] is None
