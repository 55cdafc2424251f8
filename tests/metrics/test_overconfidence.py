"""Intervals against plain resampling and simulation; the quantities against those of calibration."""

import numpy as np
import pytest

from robusteval.metrics.calibration import calibration
from robusteval.metrics.confidence import auroc
from robusteval.metrics.detection import SCORES, auroc_interval, detection, paired_auroc
from robusteval.metrics.overconfidence import QUANTITIES, difference, measured
from robusteval.metrics.predictions import Predictions


def answers(n: int = 400, sharpness: float = 2.0, seed: int = 0) -> Predictions:
    numbers = np.random.default_rng(seed)
    labels = numbers.integers(0, 6, n)
    logits = numbers.normal(size=(n, 6))
    logits[np.arange(n), labels] += 1.5 * numbers.uniform(0, 2, n)
    return Predictions.from_logits((sharpness * logits).astype(np.float32), labels)


def test_values_are_those_of_calibration_and_lie_in_their_intervals() -> None:
    predictions = answers()
    found, due = measured(predictions, 0), calibration(predictions)
    for name, key in (("gap", "confidence_gap"), *((n, n) for n in ("overconfidence", "underconfidence", "ece"))):
        assert found[name]["value"] == pytest.approx(due[key], rel=1e-8)
    assert found["accuracy"]["value"] == pytest.approx(predictions.correct.mean())
    assert found["error_auroc"]["value"] == pytest.approx(auroc(predictions.confidences, predictions.correct))
    for name in set(found) - {"ece"}:
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]


def test_where_all_is_right_there_is_no_overconfidence() -> None:
    predictions = answers()
    right = predictions.take(predictions.correct)
    found = measured(right, 0)
    assert found["overconfidence"]["value"] is None
    assert found["error_auroc"]["value"] is None
    assert found["underconfidence"]["value"] == pytest.approx(1 - right.confidences.mean())
    assert measured(predictions.take(np.zeros(0, dtype=int)), 0)["gap"]["value"] is None


def test_a_sharper_network_is_more_overconfident_by_what_resampling_says() -> None:
    """The same answers at twice the confidence: pairs of images, resampled here by a loop."""
    soft, sharp = answers(sharpness=1.0), answers(sharpness=3.0)
    for name in QUANTITIES[1:4]:
        found = difference(sharp, soft, name, 0)
        assert found["low"] > 0
    numbers = np.random.default_rng(5)
    drawn = []
    for _ in range(600):
        rows = numbers.integers(0, len(soft), len(soft))
        gaps = [calibration(part.take(rows))["confidence_gap"] for part in (sharp, soft)]
        drawn.append(gaps[0] - gaps[1])
    found = difference(sharp, soft, "gap", 0)
    assert found["low"] == pytest.approx(np.quantile(drawn, 0.025), abs=0.006)
    assert found["high"] == pytest.approx(np.quantile(drawn, 0.975), abs=0.006)
    same = difference(soft, soft, "gap", 0)
    assert same == {"value": 0.0, "low": 0.0, "high": 0.0}


# ---------------------------------------------------------------- detection


def test_scores_are_what_their_names_say() -> None:
    logits = np.array([[2.0, 1.0, -1.0], [0.0, 0.0, 5.0]], dtype=np.float32)
    predictions = Predictions.from_logits(logits, np.array([0, 1]))
    p = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True)
    due = {
        "msp": p.max(1),
        "max_logit": [2.0, 5.0],
        "energy": np.log(np.exp(logits.astype(float)).sum(1)),
        "entropy": (p * np.log(p)).sum(1),
        "margin": [1.0, 5.0],
    }
    assert set(due) == set(SCORES)
    for name, values in due.items():
        np.testing.assert_allclose(SCORES[name](predictions), values, rtol=1e-6)


def test_auroc_by_hand_with_ties() -> None:
    value, low, high = paired_auroc(np.array([3.0, 2.0, 2.0]), np.array([2.0, 1.0, 3.0]))
    assert value == pytest.approx((2.5 + 1.5 + 1.5) / 9)
    assert low < value < high
    assert paired_auroc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == (1.0, 1.0, 1.0)
    assert auroc_interval(np.array([2.0, 0.0, 1.0]), np.array([True, False, False]))[0] == 1


def test_the_intervals_have_the_width_that_repetition_shows() -> None:
    """Scores of two conditions that share much of what varies between images: drawn 400 times."""
    numbers, values, halves, plain = np.random.default_rng(1), [], [], []
    for _ in range(400):
        image = numbers.normal(size=120)
        first, second = image + 0.5 * numbers.normal(size=120) + 0.4, image + 0.5 * numbers.normal(size=120)
        value, low, high = paired_auroc(first, second)
        values.append(value)
        halves.append((high - low) / 2)
        both = np.concatenate([first, numbers.permutation(second)])
        _, low, high = auroc_interval(both, np.arange(240) < 120)
        plain.append((high - low) / 2)
    assert np.mean(halves) == pytest.approx(1.96 * np.std(values), rel=0.1)
    assert np.mean(plain) > 1.3 * np.mean(halves), "pairs that go together tell more than strangers"


def test_detection_of_what_was_not_attacked_is_chance() -> None:
    clean = answers()
    for row in detection(clean, clean):
        assert (row["value"], row["n"]) == (0.5, 400)
    attacked = answers(sharpness=0.5)
    rows = {row["score"]: row for row in detection(clean, attacked)}
    assert rows["msp"]["low"] > 0.6
    assert rows["energy"]["value"] == pytest.approx(
        auroc(np.r_[clean.logsumexp, attacked.logsumexp], np.arange(800) < 400)
    )
