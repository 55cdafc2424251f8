"""The sections of results.json from a small table, counted by hand."""

import json

import numpy as np
import pyarrow as pa
import pytest

from robusteval.errors import RobustevalError
from robusteval.metrics.accuracy import wilson
from robusteval.metrics.predictions import Predictions
from robusteval.metrics.summary import summarise

LABELS = [0, 0, 1, 1, 2, 2]
CLEAN = [0, 0, 1, 2, 2, 2]  # one wrong: the fourth
ATTACKED = [0, 1, 0, 2, 2, 0]
BROKEN_BY = [None, "pgd", "square", None, None, "pgd"]
ROBUST = [True, False, False, False, True, False]


def _logits(predictions: list[int], classes: int) -> np.ndarray:
    logits = np.zeros((len(predictions), classes), dtype=np.float32)
    logits[range(len(predictions)), predictions] = np.arange(1, len(predictions) + 1)
    return logits


def _columns(classes: int = 3) -> dict:
    labels = np.array(LABELS)
    clean = Predictions.from_logits(_logits(CLEAN, classes), labels)
    attacked = Predictions.from_logits(_logits(ATTACKED, classes), labels)
    return {
        "label": labels.astype(np.int32),
        "clean_correct": clean.correct,
        "robust": np.array(ROBUST),
        "broken_by": pa.array(BROKEN_BY, pa.string()),
        "nonfinite": np.zeros(6, dtype=bool),
        **clean.columns("clean"),
        **attacked.columns("attacked"),
    }


def _summary(samples: pa.Table, classes: int = 3, **options) -> dict:
    return summarise(samples, classes=classes, stages=["pgd", "square"], point="first_success", **options)


def test_counts_by_hand(table) -> None:
    got = _summary(table(_columns()), class_names=["cat", "dog", "owl"])
    assert (got["clean"]["accuracy"]["correct"], got["clean"]["accuracy"]["n"]) == (5, 6)
    assert [(r["name"], r["correct"], r["n"]) for r in got["clean"]["per_class"]] == [
        ("cat", 2, 2),
        ("dog", 1, 2),
        ("owl", 2, 2),
    ]
    assert got["clean"]["disparity"]["worst_class"] == 1
    robust = got["robust"]
    low, high = wilson(2, 6)
    assert robust["accuracy"] == {"value": 2 / 6, "low": low, "high": high, "correct": 2, "n": 6}
    assert robust["attack_success_rate"] == 3 / 5
    low, high = wilson(3, 5)
    assert robust["attack_success"] == {"low": low, "high": high, "broken": 3, "n": 5}
    assert [(r["class"], r["correct"]) for r in robust["per_class"]] == [(0, 1), (1, 0), (2, 1)]
    assert robust["disparity"]["range"] == 0.5
    assert robust["by_stage"] == [
        {"stage": "pgd", "entered": 5, "broken": 2},
        {"stage": "square", "entered": 3, "broken": 1},
    ]
    assert robust["nonfinite"] == 0
    assert got["attacked"]["point"] == "first_success"
    assert got["attacked"]["accuracy"]["correct"] == 2
    assert got["attacked"]["calibration"]["n"] == 6
    assert got["clean"]["confidence"]["mean"] > got["clean"]["accuracy"]["value"] - 0.2


def test_clean_and_attacked_numbers_are_of_their_own_columns(table) -> None:
    got = _summary(table(_columns()))
    p = [np.exp(k) / (np.exp(k) + 2) for k in range(1, 7)]
    assert got["clean"]["calibration"]["overconfidence"] == pytest.approx(p[3])
    assert got["attacked"]["calibration"]["overconfidence"] == pytest.approx(np.mean([p[1], p[2], p[3], p[5]]))
    assert got["attacked"]["calibration"]["underconfidence"] == pytest.approx(np.mean([1 - p[0], 1 - p[4]]))


def test_top5_is_there_where_it_says_something(table) -> None:
    few, many = _summary(table(_columns())), _summary(table(_columns(8)), classes=8)
    assert "top5" not in few["clean"]
    assert "top5" not in few["attacked"]
    assert many["clean"]["top5"]["correct"] == 6
    assert many["attacked"]["top5"]["n"] == 6


def test_answers_of_a_survey_have_neither_top5_nor_classwise_error(table) -> None:
    columns = _columns(8)
    columns["attacked_top_classes"][2:, 1:] = -1
    columns["attacked_top_logits"][2:, 1:] = np.nan
    got = _summary(table(columns), classes=8)
    assert "top5" in got["clean"]
    assert "top5" not in got["attacked"]
    assert got["clean"]["calibration"]["classwise_ece"] > 0
    assert got["attacked"]["calibration"]["classwise_ece"] is None
    assert got["attacked"]["calibration"]["ece"] > 0
    json.dumps(got, allow_nan=False)


def test_results_are_strict_json_even_where_nothing_is_known(table) -> None:
    broken = {**_columns(), "nonfinite": np.ones(6, dtype=bool), "clean_correct": np.zeros(6, dtype=bool)}
    nan = Predictions.from_logits(np.full((6, 3), np.nan, np.float32), np.array(LABELS))
    broken |= {"robust": np.zeros(6, dtype=bool), **nan.columns("clean"), **nan.columns("attacked")}
    for samples in (table(_columns()), table(broken), table(_columns()).slice(0, 0)):
        got = _summary(samples)
        assert json.loads(json.dumps(got, allow_nan=False)) == got
    hopeless = _summary(table(broken))
    assert hopeless["clean"]["accuracy"]["value"] == 0.0
    assert hopeless["clean"]["calibration"]["ece"] is None
    assert hopeless["clean"]["calibration"]["nonfinite"] == 6
    assert hopeless["robust"]["nonfinite"] == 6
    assert hopeless["robust"]["attack_success_rate"] is None
    assert hopeless["robust"]["by_stage"][0]["entered"] == 0


def test_originally_wrong_samples_count_for_no_stage(table) -> None:
    """With engine.stop=never those are attacked too, and a stage may be named for them."""
    columns = _columns()
    columns["broken_by"] = pa.array([*BROKEN_BY[:3], "square", *BROKEN_BY[4:]], pa.string())
    assert _summary(table(columns))["robust"]["by_stage"][1] == {"stage": "square", "entered": 3, "broken": 1}


def test_a_stage_that_the_run_does_not_have_is_refused(table) -> None:
    with pytest.raises(RobustevalError, match="broken by 'pgd'"):
        summarise(table(_columns()), classes=3, stages=["fgsm"], point="first_success")
    columns = {**_columns(), "broken_by": pa.nulls(6, pa.string()), "robust": _columns()["clean_correct"]}
    none = summarise(table(columns), classes=3, stages=[], point="first_success")
    assert none["robust"]["by_stage"] == []
    assert none["robust"]["accuracy"]["correct"] == 5
