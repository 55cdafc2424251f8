"""Numbers as they are printed."""

import pytest

from robusteval.report import words


@pytest.mark.parametrize(
    ("eps", "written"),
    [
        (8 / 255, "8/255"),
        (4 / 255, "4/255"),
        (0.3, "0.3"),
        (0.5, "0.5"),
        (0.2, "0.2"),
        (0, "0"),
        (12.0, "12"),
        (None, ""),
    ],
)
def test_radius_is_written_as_people_write_it(eps: float | None, written: str) -> None:
    assert words.radius(eps) == written


@pytest.mark.parametrize(("value", "written"), [(3.24, "3.2 s"), (250, "4 min 10 s"), (7500, "2 h 5 min")])
def test_seconds(value: float, written: str) -> None:
    assert words.seconds(value) == written


def test_what_does_not_exist_is_a_dash_and_never_a_zero() -> None:
    assert words.percent(None) == words.number(None) == "–"
    assert words.points(None) == words.probability(None) == "–"
    assert words.percent(0.0) == "0.0 %"


def test_signs_are_real_minuses_and_zero_has_none() -> None:
    assert [words.points(value) for value in (0.123, -0.123, 0.0004, -0.0004)] == ["+12.3", "−12.3", "0.0", "0.0"]
    assert [words.number(value) for value in (-0.25, -0.0001, 0.25)] == ["−0.250", "0.000", "0.250"]
    assert [words.probability(p) for p in (1.0, 0.04321, 0.0001, 1e-9)] == ["1", "0.043", "0.0001", "< 0.0001"]


def test_threats() -> None:
    assert words.threat_in_words({"norm": "linf", "eps": 8 / 255, "goal": "top1"}) == "linf 8/255, top1"
    assert words.threat_in_words({"norm": "unbounded", "eps": None, "goal": "top5"}) == "unbounded, top5"
    several = {"norm": "linf", "eps": [2 / 255, 4 / 255, 8 / 255], "goal": "top1"}
    assert words.threat_in_words(several) == "linf 2/255 … 8/255, top1"
    assert [words.largest(eps) for eps in ([0.1, 0.3], 0.2, None)] == [0.3, 0.2, None]
