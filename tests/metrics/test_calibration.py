"""Calibration against hand-computed cases, torchmetrics, torch and brute force."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.functional.classification import multiclass_calibration_error

from robusteval.metrics.calibration import (
    BINS,
    adaptive_ece,
    bin_of,
    calibration,
    classwise_ece,
    reliability,
    top_label_brier,
)
from robusteval.metrics.predictions import Predictions


def _random(n: int, classes: int, seed: int = 0, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(n, classes)) * scale).astype(np.float32)
    labels = np.where(rng.random(n) < 0.6, logits.argmax(1), rng.integers(0, classes, n))
    return logits, labels


def _binary(confidences: list[float], correct: list[bool]) -> Predictions:
    """Two-class predictions of class 0 with the given confidences (each at least 1/2)."""
    p = np.array(confidences)
    with np.errstate(divide="ignore"):
        logits = np.stack([np.log(p), np.log1p(-p)], axis=1)
    return Predictions.from_logits(np.maximum(logits, -1e6), np.where(correct, 0, 1))


def test_by_hand() -> None:
    """Bins of .6 (9th), .8 (12th: (11/15, 12/15]) and .98 (15th), with two, four and four samples."""
    z = [0.6, 0.6, 0.8, 0.8, 0.8, 0.8, 0.98, 0.98, 0.98, 0.98]
    right = [True, False, True, True, False, False, True, True, True, True]
    got = calibration(_binary(z, right))
    gaps = np.array([0.1, 0.3, 0.02])
    assert got["ece"] == pytest.approx(0.2 * 0.1 + 0.4 * 0.3 + 0.4 * 0.02)
    assert got["mce"] == pytest.approx(0.3)
    assert got["rmsce"] == pytest.approx(np.sqrt((np.array([0.2, 0.4, 0.4]) * gaps**2).sum()))
    assert got["confidence_gap"] == pytest.approx(0.2 * 0.6 + 0.4 * 0.8 + 0.4 * 0.98 - 0.7)
    assert got["overconfidence"] == pytest.approx((0.6 + 0.8 + 0.8) / 3)
    assert got["underconfidence"] == pytest.approx((0.4 + 2 * 0.2 + 4 * 0.02) / 7)
    assert got["brier"] == pytest.approx(2 * np.mean([(z_ - r) ** 2 for z_, r in zip(z, right, strict=True)]))
    assert got["nll"] == pytest.approx(-np.mean([np.log(z_ if r else 1 - z_) for z_, r in zip(z, right, strict=True)]))
    assert (got["n"], got["nonfinite"]) == (10, 0)
    assert [(row["n"], row["accuracy"]) for row in got["reliability"]] == [(2, 0.5), (4, 0.5), (4, 1.0)]
    assert [row["confidence"] for row in got["reliability"]] == pytest.approx([0.6, 0.8, 0.98])
    assert [row["low"] for row in got["reliability"]] == pytest.approx([8 / 15, 11 / 15, 14 / 15])
    assert [row["high"] for row in got["reliability"]] == pytest.approx([9 / 15, 12 / 15, 1])


@pytest.mark.parametrize("classes", [3, 10, 200])
def test_agrees_with_torchmetrics(classes: int) -> None:
    logits, labels = _random(3000, classes)
    got = calibration(Predictions.from_logits(logits, labels))
    p = torch.from_numpy(logits).double().softmax(1)
    reference = partial(multiclass_calibration_error, p, torch.from_numpy(labels), classes, n_bins=BINS)
    assert got["ece"] == pytest.approx(float(reference(norm="l1")), abs=1e-6)
    assert got["mce"] == pytest.approx(float(reference(norm="max")), abs=1e-6)
    assert got["rmsce"] == pytest.approx(float(reference(norm="l2")), abs=1e-6)


@pytest.mark.parametrize("classes", [3, 200])
def test_proper_scores_equal_those_of_the_full_softmax(classes: int) -> None:
    logits, labels = _random(500, classes)
    got = calibration(Predictions.from_logits(logits, labels))
    exact, y = torch.from_numpy(logits).double(), torch.from_numpy(labels)
    assert got["nll"] == pytest.approx(float(torch.nn.functional.cross_entropy(exact, y)), rel=1e-12)
    one_hot = torch.nn.functional.one_hot(y, classes)
    assert got["brier"] == pytest.approx(float(((exact.softmax(1) - one_hot) ** 2).sum(1).mean()), rel=1e-12)


def test_bins_are_open_below_and_closed_above() -> None:
    edges = np.linspace(0, 1, BINS + 1)
    assert bin_of(edges).tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    assert bin_of(np.nextafter(edges[:-1], 1)).tolist() == list(range(BINS))


def test_reliability_skips_empty_bins() -> None:
    rows = reliability(np.array([0.0, 1.0, 1.0]), np.array([True, False, True]))
    assert rows == [
        {"low": 0.0, "high": pytest.approx(1 / 15), "n": 1, "confidence": 0.0, "accuracy": 1.0},
        {"low": pytest.approx(14 / 15), "high": 1.0, "n": 2, "confidence": 1.0, "accuracy": 0.5},
    ]


_steady = settings(deadline=None, derandomize=True, max_examples=150)
_outcomes = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        arrays(np.float64, (n, 4), elements=st.sampled_from([-30.0, -2.0, 0.0, 0.5, 1.0, 3.0]) | st.floats(-20, 20)),
        arrays(np.int64, n, elements=st.integers(0, 3)),
    )
)


@_steady
@given(_outcomes)
def test_confidence_balance_never_exceeds_the_error(case: tuple[np.ndarray, np.ndarray]) -> None:
    """Grabinski et al. 2022: |o P(wrong) - u P(right)| <= ECE; and ECE <= RMSCE <= MCE <= 1."""
    predictions = Predictions.from_logits(*case)
    got, right = calibration(predictions), predictions.correct.mean()
    over, under = got["overconfidence"] or 0.0, got["underconfidence"] or 0.0
    balance = over * (1 - right) - under * right
    assert abs(balance) <= got["ece"] + 1e-12
    assert balance == pytest.approx(got["confidence_gap"], abs=1e-12)
    assert got["ece"] <= got["rmsce"] + 1e-12
    assert got["rmsce"] <= got["mce"] + 1e-12
    assert got["mce"] <= 1
    brier = got["top_label_brier"]
    parts = brier["reliability"] - brier["resolution"] + brier["uncertainty"] + brier["within_bin"]
    assert brier["score"] == pytest.approx(parts, abs=1e-12)
    assert abs(got["confidence_gap"]) <= got["adaptive_ece"] + 1e-12


@_steady
@given(_outcomes, st.randoms(use_true_random=False))
def test_the_order_of_the_samples_does_not_matter(case: tuple[np.ndarray, np.ndarray], random) -> None:
    order = list(range(len(case[1])))
    random.shuffle(order)
    first, second = (calibration(Predictions.from_logits(case[0][o], case[1][o])) for o in (slice(None), order))
    for name, value in first.items():
        if isinstance(value, float):
            assert second[name] == pytest.approx(value, abs=1e-12), name
    assert [r["n"] for r in first["reliability"]] == [r["n"] for r in second["reliability"]]


def test_brier_without_spread_inside_the_bins_is_murphys() -> None:
    z = np.repeat([0.3, 0.7], [4, 6])
    right = np.array([1, 0, 0, 0, 1, 1, 1, 0, 0, 1], dtype=bool)
    got = top_label_brier(z, right)
    assert got["within_bin"] == pytest.approx(0, abs=1e-15)
    assert got["reliability"] == pytest.approx(0.4 * (0.3 - 0.25) ** 2 + 0.6 * (0.7 - 4 / 6) ** 2)
    assert got["resolution"] == pytest.approx(0.4 * (0.25 - 0.5) ** 2 + 0.6 * (4 / 6 - 0.5) ** 2)
    assert got["uncertainty"] == 0.25
    logits, labels = _random(800, 10)
    whole = calibration(Predictions.from_logits(logits, labels))
    assert whole["top_label_brier"]["reliability"] == pytest.approx(whole["rmsce"] ** 2, rel=1e-12)


def test_adaptive_bins_hold_equal_mass() -> None:
    rng = np.random.default_rng(3)
    z, right = rng.random(60), rng.random(60) < 0.5
    pairs = sorted(zip(z, right, strict=True))
    expected = sum(
        abs(sum(c for c, _ in part) - sum(r for _, r in part)) for part in (pairs[i : i + 4] for i in range(0, 60, 4))
    )
    assert adaptive_ece(z, right) == pytest.approx(expected / 60)
    assert adaptive_ece(z[:7], right[:7]) == pytest.approx(np.abs(z[:7] - right[:7]).mean())


def test_adaptive_error_of_equal_confidences_is_the_gap() -> None:
    assert adaptive_ece(np.full(40, 0.75), np.arange(40) < 10) == pytest.approx(0.5)


def test_classwise_by_brute_force() -> None:
    logits, labels = _random(200, 5)
    exact = np.exp(logits.astype(float))
    p = exact / exact.sum(1, keepdims=True)
    errors = []
    for c in range(5):
        error = 0.0
        for b in range(BINS):
            members = [i for i in range(200) if b / BINS < p[i, c] <= (b + 1) / BINS]
            if members:
                error += len(members) / 200 * abs(np.mean(p[members, c]) - np.mean(labels[members] == c))
        errors.append(error)
    assert classwise_ece(Predictions.from_logits(logits, labels)) == pytest.approx(np.mean(errors), rel=1e-6)
    assert calibration(Predictions.from_logits(*_random(50, 101)))["classwise_ece"] is None


def test_a_calibrated_sampler_has_no_error_in_the_limit() -> None:
    rng = np.random.default_rng(11)
    errors = []
    for n in (2_000, 200_000):
        logits = rng.normal(size=(n, 5)) * 2
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        labels = (rng.random((n, 1)) > p.cumsum(1)).sum(1).clip(max=4)
        got = calibration(Predictions.from_logits(logits, labels))
        errors.append([got[name] for name in ("ece", "rmsce", "adaptive_ece", "classwise_ece")])
        assert abs(got["confidence_gap"]) < 4 * 0.5 / np.sqrt(n)
    assert max(errors[1]) < 0.006
    assert all(late < early / 3 for early, late in zip(*errors, strict=True))


def test_rows_that_are_not_finite_are_left_out_and_counted() -> None:
    logits, labels = _random(30, 4)
    spoilt, more = np.vstack([logits, np.full((2, 4), np.nan, np.float32)]), np.r_[labels, 0, 1]
    got, expected = (calibration(Predictions.from_logits(*case)) for case in ((spoilt, more), (logits, labels)))
    assert got.pop("nonfinite") == 2
    assert expected.pop("nonfinite") == 0
    assert got == expected


def test_extremes() -> None:
    right = calibration(_binary([0.9, 0.7], [True, True]))
    assert (right["overconfidence"], right["underconfidence"]) == (None, pytest.approx(0.2))
    wrong = calibration(_binary([0.9, 0.7], [False, False]))
    assert (wrong["overconfidence"], wrong["underconfidence"]) == (pytest.approx(0.8), None)
    nothing = calibration(Predictions.from_logits(np.full((1, 3), np.inf), np.array([0])))
    assert nothing.pop("nonfinite") == 1
    assert nothing.pop("n") == 0
    assert nothing.pop("reliability") == []
    assert set(nothing.values()) == {None}
