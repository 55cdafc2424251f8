"""The result table: every number of it stands in results.json, and it fits."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robusteval.report.console import show, sink_in_words

Maker = Callable[..., dict[str, Any]]


def _line(text: str, start: str) -> str:
    (line,) = [line for line in text.splitlines() if line.strip().startswith(start)]
    return " ".join(line.split())


def test_rates_stand_with_interval_and_counts(
    make_results: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = make_results()
    show(results, tmp_path)
    out = capsys.readouterr().out
    for words, rate in (
        ("clean accuracy ", results["clean"]["accuracy"]),
        ("robust accuracy ", results["robust"]["accuracy"]),
    ):
        span = f"{100 * rate['low']:.1f} – {100 * rate['high']:.1f}"
        expected = f"{words}{100 * rate['value']:.1f} % {span} {rate['correct']} of {rate['n']}"
        assert _line(out, f"{words} ") == expected
    assert f"{100 * results['robust']['attack_success_rate']:.1f} %" in _line(out, "attack success rate")
    ece = [results[part]["calibration"]["ece"] for part in ("clean", "attacked")]
    assert _line(out, "expected calibration error") == f"expected calibration error {ece[0]:.3f} {ece[1]:.3f}"
    assert "attacked (first success)" in out
    assert "linf 8/255, top1" in out


def test_it_fits_a_hundred_columns_without_escape_codes(
    make_results: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [{"id": "gradient", "verdict": "warn", "summary": "gradients vanish on 12 of 240 images, " * 6}]
    model = {"name": "a_network_with_a_name_of_its_own", "source": "python", "digest": ""}
    show(make_results(checks=checks, model=model), tmp_path)
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 100
    assert "\x1b" not in out


def test_an_ascii_log_gets_a_table_too(make_results: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    show(make_results(), tmp_path)
    sys.stdout.flush()
    assert b"robust accuracy" in raw.getvalue()


def test_brackets_in_names_are_text_and_not_markup(
    make_results: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [{"id": "x[/]", "verdict": "warn", "summary": "[bold]no[/bold] [0, 1]", "advice": "[red]"}]
    show(make_results(model={"name": "net[red]", "source": "python", "digest": ""}, checks=checks), tmp_path)
    out = capsys.readouterr().out
    assert "net[red]" in out
    assert "x[/]: [bold]no[/bold] [0, 1] (what to do: [red])" in out


def test_a_failed_check_marks_the_number(
    make_results: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(make_results(checks=[{"id": "nan", "verdict": "fail", "summary": "logits are NaN"}]), tmp_path)
    failed = capsys.readouterr().out
    show(make_results(), tmp_path)
    assert "robust accuracy †" in failed
    assert "do not quote" in failed
    assert "†" not in capsys.readouterr().out


def test_numbers_that_do_not_exist_are_dashes(
    make_results: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = make_results()
    results["clean"]["calibration"]["overconfidence"] = None
    results["robust"]["attack_success_rate"] = None
    results["robust"]["attack_success"] = {"low": 0, "high": 1, "broken": 0, "n": 0}
    show(results, tmp_path)
    out = capsys.readouterr().out
    assert _line(out, "overconfidence").split()[-2] == "–"
    assert _line(out, "attack success rate") == "attack success rate – – 0 of 0 right"


def test_survey_stages_curve_and_nonfinite_get_lines(
    make_results: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = {"value": 0.25, "low": 0.2, "high": 0.31, "correct": 60, "n": 240}
    results = make_results(
        survey={
            "worst": {"parameter": 0.1, **rate},
            "random": [{"tries": 9, "value": 0.4, "se": 0.02}, {"tries": 10, "value": 0.35, "se": 0.02}],
        }
    )
    results["robust"]["by_stage"] = [
        {"stage": "pgd", "entered": 200, "broken": 50},
        {"stage": "apgd", "entered": 150, "broken": 7},
    ]
    results["robust"]["curve"] = [{"eps": 0.1, **rate}]
    results["robust"]["nonfinite"] = 3
    show(results, tmp_path)
    out = capsys.readouterr().out
    assert _line(out, "accuracy, one parameter for all (worst: 0.1)").endswith("25.0 % 20.0 – 31.0 60 of 240")
    assert _line(out, "expected after 10 random tries").endswith("35.0 % ± 2.0 (one run)")
    assert _line(out, "broken by apgd").endswith("7 of 150")
    assert _line(out, "robust accuracy at eps 0.1").endswith("60 of 240")
    assert _line(out, "logits not finite").endswith("3")


def test_a_long_curve_gets_few_lines_and_the_radius_that_is_quoted(
    make_results: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = {"value": 0.25, "low": 0.2, "high": 0.31, "correct": 60, "n": 240}
    results = make_results()
    results["robust"]["curve"] = [{"eps": eps, **rate} for eps in sorted([8 / 255, *(k / 100 for k in range(41))])]
    show(results, tmp_path)
    out = capsys.readouterr().out
    lines = [line.split()[4] for line in out.splitlines() if "robust accuracy at eps" in line]
    assert "8/255" in lines
    assert "0" in lines
    assert len(lines) <= 12


def test_stages_of_a_list_of_radii_are_named_where_there_are_several_attacks(
    make_results: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = {"value": 0.25, "low": 0.2, "high": 0.31, "correct": 60, "n": 240}
    results = make_results(threat={"norm": "linf", "eps": [0.1, 0.2], "goal": "top1", "region": None})
    results["robust"]["curve"] = [{"eps": eps, **rate} for eps in (0.1, 0.2)]
    shown = []
    for attacks in (("pgd",), ("pgd", "apgd")):
        stages = [f"{attack}@{eps}" for eps in (0.1, 0.2) for attack in attacks]
        results["robust"]["by_stage"] = [{"stage": stage, "entered": 200, "broken": 50} for stage in stages]
        show(results, tmp_path)
        shown.append(capsys.readouterr().out)
    assert "linf 0.1 … 0.2, top1" in shown[0]
    assert "broken by" not in shown[0]
    assert _line(shown[1], "broken by apgd@0.2").endswith("50 of 200")
    assert max(len(line) for line in shown[1].splitlines()) <= 100


def test_sinks_say_where_the_run_is_and_how_to_send_it(tmp_path: Path) -> None:
    offline = {"name": "wandb", "mode": "offline", "where": "wandb/offline-run-1", "errors": ["no login: refused"]}
    said = sink_in_words(offline, tmp_path)
    assert str(tmp_path / "wandb/offline-run-1") in said
    assert "no login: refused" in said
    assert f"robusteval push {tmp_path}" in said
    missing = {
        "name": "wandb",
        "mode": "missing",
        "where": None,
        "errors": ["wandb is not installed: pip install wandb"],
    }
    assert sink_in_words(missing, tmp_path) == "wandb: not sent (wandb is not installed: pip install wandb)"
