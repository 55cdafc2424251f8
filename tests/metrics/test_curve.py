"""Robust accuracy over the radius, counted by hand."""

import numpy as np
import pyarrow as pa
import pytest

from robusteval.metrics.accuracy import wilson
from robusteval.metrics.curve import curve, grid, smallest_that_reach

# Wrong without an attack (but with a distance, as engine.stop=never gives it), broken at three radii, never broken.
CORRECT = [False, True, True, True, True]
BROKEN_AT = [None, 0.1, 0.2, 0.2, None]
DISTANCE = [0.0, 0.1, 0.11, 0.2, None]


@pytest.fixture
def samples() -> pa.Table:
    return pa.table(
        {
            "clean_correct": np.array(CORRECT),
            "broken_at_eps": pa.array(BROKEN_AT, pa.float64()),
            "adversarial_distance": pa.array(DISTANCE, pa.float64()),
        }
    )


def counts(points: list[dict] | None) -> dict[float, int]:
    assert points is not None
    return {point["eps"]: point["correct"] for point in points}


@pytest.mark.parametrize("point", ["first_success", "max_loss", "nearest"])
def test_a_list_of_radii_is_the_curve(samples: pa.Table, point: str) -> None:
    points = curve(samples, [0.0, 0.1, 0.2], point)
    assert counts(points) == {0.0: 4, 0.1: 3, 0.2: 1}
    assert points is not None
    low, high = wilson(3, 5)
    assert points[1] == {"eps": 0.1, "value": 0.6, "low": low, "high": high, "correct": 3, "n": 5}


def test_only_a_minimum_norm_run_knows_more_radii_than_it_was_given(samples: pa.Table) -> None:
    assert curve(samples, 0.2, "first_success") is None
    assert curve(samples, 0.2, "max_loss") is None
    assert curve(samples, None, "nearest") is None
    found = counts(curve(samples, 0.175, "nearest"))
    assert (found[0.0], found[0.09], found[0.1], found[0.11], found[0.175], found[0.19], found[0.2]) == (
        *(4, 4, 3, 2, 2, 2),
        1,
    )
    assert len(found) == 22
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("eps", "distances", "top", "points"),
    [
        (0.3, [0.1, 0.43], 0.5, 21),
        (8 / 255, [np.nan, 0.001], 0.04, 22),
        (0.3, [np.nan], 0.3, 21),
        (0.3, [], 0.3, 21),
        (0.5, [11.9], 15, 22),
        (2.0, [0.1], 2.0, 21),
        (0.3, [np.nextafter(0.3, 1)], 0.4, 21),
        (0.0, [0.07], 0.08, 21),
        (0.0, [], 0.0, 1),
        (5e-324, [], 5e-324, 2),
    ],
)
def test_the_grid_ends_at_a_round_number_that_covers_all(
    eps: float, distances: list[float], top: float, points: int
) -> None:
    radii = grid(eps, np.array(distances))
    assert (radii[0], radii[-1], len(radii)) == (0.0, top, points)
    assert eps in radii
    if len(radii) == 21:
        assert radii == [round(top * step / 20, 9) for step in range(21)]


def test_the_smallest_radius_that_reaches_a_distance() -> None:
    found = smallest_that_reach([0.1, 0.2], np.array([0.0, 0.1, np.nextafter(0.1, 1), 0.2, 0.21, np.nan, np.inf]))
    assert found.tolist() == [0.1, 0.1, 0.2, 0.2, np.inf, np.inf, np.inf]
    assert smallest_that_reach([], np.array([0.0, np.nan])).tolist() == [np.inf, np.inf]
