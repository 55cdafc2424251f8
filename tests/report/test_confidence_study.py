"""The confidence study: its numbers from the answers alone, its verdicts, and tables that fit 100 columns."""

import numpy as np
import pytest

from robusteval.metrics.predictions import Predictions
from robusteval.report.confidence_console import show
from robusteval.report.confidence_study import Side, describe


def side(model: str, condition: str, sharpness: float, seed: int) -> Side:
    """Answers of which about 70 % are right, the surer the larger ``sharpness``, whether right or not."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 10, 400)
    guessed = np.where(draw.random(400) < 0.7, labels, (labels + 1) % 10)
    logits = draw.normal(size=(400, 10)).astype(np.float32)
    logits[np.arange(400), guessed] += sharpness
    return Side(model=model, condition=condition, answers=Predictions.from_logits(logits, labels), ids=np.arange(400))


SIDES = [
    side("a_network_of_a_name_as_long_as_zoo_names_are", "clean", 9.0, 0),
    side("a_network_of_a_name_as_long_as_zoo_names_are", "square", 9.0, 1),
    side("modest", "clean", 3.0, 0),
    side("modest", "square", 3.0, 1),
]


def test_the_gap_and_the_confidence_of_wrong_answers_are_means_over_the_answers() -> None:
    study = describe(SIDES, seed=0)
    for given, row in zip(SIDES, study["sides"], strict=True):
        confidences, right = given.answers.confidences, given.answers.correct
        assert row["gap"]["value"] == pytest.approx(confidences.mean() - right.mean(), abs=1e-6)
        assert row["overconfidence"]["value"] == pytest.approx(confidences[~right].mean(), abs=1e-6)
        assert row["overconfidence"]["low"] < row["overconfidence"]["value"] < row["overconfidence"]["high"]


def test_the_modest_network_is_said_to_be_less_overconfident_and_the_other_way_round() -> None:
    assert all("(lower); confidence of wrong answers -" in said for said in describe(SIDES, seed=0)["verdicts"])
    turned = describe([*SIDES[2:], *SIDES[:2]], seed=0)["verdicts"]
    assert len(turned) == 2
    assert all("(higher); confidence of wrong answers +" in said for said in turned)
    same = describe([SIDES[2], side("other", "clean", 3.0, 0)], seed=0)["verdicts"]
    assert "(no difference to be told)" in same[0]


def test_the_tables_fit_a_hundred_columns(capsys: pytest.CaptureFixture[str]) -> None:
    study = describe(SIDES, seed=0)
    study["threat"] = {"norm": "linf", "eps": 0.3, "goal": "top1", "region": None}
    show(study)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    said = "\n".join(lines)
    assert said.count("modest") == 2 * 2 + 2  # two tables, two verdicts
    for row in study["sides"]:
        assert f"{row['accuracy']['value']:.3f}" in said
        assert f"{row['accuracy']['low']:.3f}…{row['accuracy']['high']:.3f}" in said
    assert "…\n" not in said, "a number was cut"
