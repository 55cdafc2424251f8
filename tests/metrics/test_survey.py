"""Surveys against a plain loop: a toy classifier on 8-bit images, solarized without any of our code."""

import numpy as np
import pytest

from robusteval.metrics.accuracy import wilson
from robusteval.metrics.survey import fooling_measure, random_search, survey, thresholds, universal, worst


def _solarize(images: np.ndarray, a: float) -> np.ndarray:
    return np.where(images >= a, 1 - images, images)


@pytest.fixture(scope="module")
def toy() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grey images [40, 12], a linear classifier's weights, and the labels it gives, some of them turned wrong."""
    rng = np.random.default_rng(5)
    images, weights = rng.integers(0, 256, (40, 12)) / 255, rng.normal(size=(12, 3))
    labels = (images @ weights).argmax(1)
    labels[::7] = (labels[::7] + 1) % 3
    return images, weights, labels


def _correct(toy: tuple[np.ndarray, np.ndarray, np.ndarray], a: float) -> np.ndarray:
    images, weights, labels = toy
    return (_solarize(images, a) @ weights).argmax(1) == labels


@pytest.fixture(scope="module")
def flags(toy: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    return np.stack([_correct(toy, a) for a in thresholds()], axis=1)


def test_thresholds_run_from_the_negative_to_the_identity() -> None:
    greys = np.arange(256) / 255
    inverted = [int((greys >= a).sum()) for a in thresholds()]
    assert inverted == list(range(256, -1, -1))
    nearest = np.abs(thresholds()[:, None] - greys).min(axis=1)
    np.testing.assert_allclose(nearest, 0.5 / 255, rtol=1e-9)


def test_measure_is_the_share_of_fooling_thresholds(toy, flags: np.ndarray) -> None:
    """Against 51 even steps inside each of the 255 intervals, ends included as [0, 1) includes them."""
    drawn = (np.arange(255 * 51) + 0.5) / (255 * 51)
    fooled = np.stack([~_correct(toy, a) for a in drawn], axis=1).mean(axis=1)
    np.testing.assert_allclose(fooling_measure(flags, thresholds()), fooled, atol=1e-12)


def test_random_search_agrees_with_running_it(toy, flags: np.ndarray) -> None:
    images, weights, labels = toy
    clean = _correct(toy, 2.0)
    runs, tries = 1500, 10
    rng = np.random.default_rng(8)
    accuracies = np.empty((runs, tries))
    for run in range(runs):
        standing = clean.copy()
        for t in range(tries):
            a = rng.random((len(images), 1))
            right = (np.where(images >= a, 1 - images, images) @ weights).argmax(1) == labels
            standing &= right
            accuracies[run, t] = standing.mean()
    for row in random_search(clean, fooling_measure(flags, thresholds()), range(1, tries + 1)):
        seen = accuracies[:, row["tries"] - 1]
        assert seen.mean() == pytest.approx(row["value"], abs=4.5 * row["se"] / np.sqrt(runs) + 1e-12)
        assert seen.std() == pytest.approx(row["se"], rel=0.12)


def test_random_search_by_hand() -> None:
    rows = random_search(np.array([True, True, False, True]), np.array([0.5, 0.0, 0.0, 1.0]))
    assert [row["tries"] for row in rows] == list(range(1, 51))
    assert rows[0] == {"tries": 1, "value": pytest.approx(1.5 / 4), "se": pytest.approx(0.5 / 4)}
    assert rows[1] == {"tries": 2, "value": pytest.approx(1.25 / 4), "se": pytest.approx(np.sqrt(0.1875) / 4)}
    assert random_search(np.empty(0, bool), np.empty(0)) == []


def test_measure_refuses_other_columns() -> None:
    with pytest.raises(ValueError, match="257 thresholds"):
        fooling_measure(np.ones((2, 101), bool), np.linspace(0, 1, 101))
    with pytest.raises(ValueError, match="257 thresholds"):
        fooling_measure(np.ones((2, 257), bool), np.linspace(0, 1, 257))
    float32 = thresholds().astype(np.float32)
    assert fooling_measure(np.ones((2, 257), bool), float32).tolist() == [0.0, 0.0]


def test_universal_curve_and_its_first_minimum() -> None:
    correct = np.array([[1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0]], dtype=bool)
    curve = universal(correct, [0.0, 0.1, 0.2, 0.3])
    assert [point["correct"] for point in curve] == [3, 1, 1, 2]
    low, high = wilson(1, 3)
    assert worst(curve) == {"parameter": 0.1, "value": 1 / 3, "low": low, "high": high, "correct": 1, "n": 3}


def test_survey_puts_it_together(toy, flags: np.ndarray) -> None:
    clean = _correct(toy, 2.0)
    got = survey(flags, thresholds(), clean, exhaustive=True)
    assert got["universal"][-1]["value"] == clean.mean() == got["universal"][256]["value"]
    assert got["worst"]["value"] == min(_correct(toy, a).mean() for a in np.linspace(0, 1.01, 2000))
    for_each = np.all([_correct(toy, a) for a in np.linspace(0, 1.01, 2000)], axis=0)
    assert got["per_image"]["correct"] == for_each.sum()
    assert got["random"][49]["value"] >= got["per_image"]["value"]
    assert "random" not in survey(flags[:, :5], thresholds()[:5], clean, exhaustive=False)


def test_no_image_has_no_worst() -> None:
    got = survey(np.empty((0, 257), bool), thresholds(), np.empty(0, bool), exhaustive=True)
    assert got["worst"] is None
    assert got["random"] == []
    assert got["per_image"]["value"] is None
