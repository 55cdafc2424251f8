"""Error detection against hand-computed cases, torchmetrics, and an average over every order of the ties."""

from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from robusteval.metrics.confidence import aurc, auroc, average_precision, best_aurc, confidence, fpr_at
from robusteval.metrics.predictions import Predictions


def _case(seed: int, n: int = 400, levels: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and flags that they predict somewhat."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, n) / levels
    return scores, rng.random(n) < 0.2 + 0.6 * scores


def test_by_hand() -> None:
    """Ranked .9 right, .8 right, .7 wrong, .6 right."""
    scores, right = np.array([0.6, 0.9, 0.7, 0.8]), np.array([True, True, False, True])
    assert auroc(scores, right) == pytest.approx(2 / 3)
    assert average_precision(scores, right) == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert average_precision(-scores, ~right) == pytest.approx(1 / 2)
    assert fpr_at(scores, right, 0.95) == 1.0
    assert fpr_at(scores, right, 2 / 3) == 0.0
    assert aurc(scores, right) == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert best_aurc(right) == pytest.approx((1 / 4) / 4)


@pytest.mark.parametrize("seed", range(5))
def test_ranking_agrees_with_torchmetrics_under_ties(seed: int) -> None:
    scores, right = _case(seed)
    preds, target = torch.from_numpy(scores), torch.from_numpy(right).int()
    assert auroc(scores, right) == pytest.approx(float(binary_auroc(preds, target)), abs=1e-6)
    assert average_precision(scores, right) == pytest.approx(float(binary_average_precision(preds, target)), abs=1e-6)
    reverse = float(binary_average_precision(1 - preds, 1 - target))
    assert average_precision(-scores, ~right) == pytest.approx(reverse, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_fpr_is_that_of_the_highest_threshold_which_keeps_95_percent(seed: int) -> None:
    scores, right = _case(seed)
    threshold = max(t for t in scores if (scores[right] >= t).mean() >= 0.95)
    assert fpr_at(scores, right, 0.95) == pytest.approx((scores[~right] >= threshold).mean())


def test_fpr_takes_exactly_95_percent_as_enough() -> None:
    scores = np.r_[np.arange(20.0) + 1, 1.5, 2.5]
    right = np.arange(22) < 20
    assert fpr_at(scores, right, 0.95) == pytest.approx(1 / 2)


def test_risk_under_ties_is_that_of_a_random_order() -> None:
    scores = np.array([0.9, 0.9, 0.9, 0.5, 0.5, 0.2])
    right = np.array([True, False, True, False, True, False])
    areas = []
    for order in permutations(range(6)):
        if all(scores[a] >= scores[b] for a, b in pairwise(order)):
            wrong = (~right[list(order)]).cumsum()
            areas.append((wrong / np.arange(1, 7)).mean())
    assert len(areas) == 12
    assert aurc(scores, right) == pytest.approx(np.mean(areas))


def test_best_area_is_reached_by_a_perfect_confidence_and_nears_the_formula() -> None:
    right = np.arange(20_000) % 5 != 0
    assert aurc(right.astype(float) + np.linspace(0, 0.1, 20_000), right) == pytest.approx(best_aurc(right))
    assert best_aurc(right) == pytest.approx(0.2 + 0.8 * np.log(0.8), abs=1e-4)


def test_confidence_of_predictions() -> None:
    logits = np.log(np.array([[0.4, 0.6], [0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [np.nan, 1.0]]))
    got = confidence(Predictions.from_logits(logits, np.array([1, 0, 1, 1, 1])))
    assert got == {
        "mean": pytest.approx(0.75),
        "auroc": pytest.approx(2 / 3),
        "aupr_success": pytest.approx((1 + 1 + 3 / 4) / 3),
        "aupr_error": pytest.approx(1 / 2),
        "fpr95": 1.0,
        "aurc": pytest.approx(7 / 48),
        "eaurc": pytest.approx(7 / 48 - 1 / 16),
        "n": 4,
        "nonfinite": 1,
    }


@pytest.mark.parametrize(("label", "area"), [(0, 0.0), (1, 1.0)])
def test_one_kind_of_answer_has_no_ranking(label: int, area: float) -> None:
    got = confidence(Predictions.from_logits(np.array([[2.0, 1.0], [1.0, 0.0]]), np.array([label, label])))
    assert [got[name] for name in ("auroc", "aupr_success", "aupr_error", "fpr95")] == [None] * 4
    assert (got["aurc"], got["eaurc"]) == (area, 0.0)


def test_nothing_has_no_numbers() -> None:
    got = confidence(Predictions.from_logits(np.array([[np.nan, 1.0]]), np.array([0])))
    assert (got.pop("n"), got.pop("nonfinite")) == (0, 1)
    assert set(got.values()) == {None}
