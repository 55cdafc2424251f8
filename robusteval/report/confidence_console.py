"""The confidence study on standard output: two tables of at most 100 columns, and its verdicts."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from robusteval.report.console import terminal
from robusteval.report.words import NOTHING, number, threat_in_words

_MEASURED = {
    "accuracy": "accuracy",
    "confidence": "confidence",
    "gap": "less acc.",
    "overconfidence": "of wrong",
    "underconfidence": "doubt of right",
    "ece": "ECE",
}
_SCORES = {"msp": "MSP", "max_logit": "max logit", "energy": "energy", "entropy": "entropy", "margin": "margin"}


def show(study: Mapping[str, Any]) -> None:
    """Print a study as written to its results.json, {threat, sides, detection, verdicts}; intervals stand below."""
    console = terminal()
    images = max(side["n"] for side in study["sides"])
    heading = f"confidence under attack ({threat_in_words(study['threat'])}), {images} images"
    console.print(escape(heading), style="bold")
    console.print(_measures(study["sides"]))
    console.print(_rankings(study["sides"], study["detection"]))
    for verdict in study["verdicts"]:
        console.print(escape(verdict))


def _measures(sides: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(
        "mean confidence: of all answers, less the accuracy, of wrong answers; 95 % intervals over the images"
    )
    for name in ("model", "images"):
        table.add_column(name, overflow="fold")
    for words in _MEASURED.values():
        table.add_column(words, justify="right", no_wrap=True)
    for side in sides:
        cells = [_above_its_interval(side[name]) for name in _MEASURED]
        table.add_row(escape(side["model"]), escape(side["condition"]), *cells)
    return table


def _rankings(sides: Sequence[Mapping[str, Any]], detection: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("right from wrong answers by confidence, and (AUROC) clean from attacked images by each score")
    for name in ("model", "images"):
        table.add_column(name, overflow="fold")
    for words in ("AUROC", "FPR95", "AURC", *_SCORES.values()):
        table.add_column(words, justify="right", no_wrap=True)
    seen = {(row["model"], row["condition"]): {one["score"]: one for one in row["scores"]} for row in detection}
    for side in sides:
        scores = seen.get((side["model"], side["condition"]), {})
        cells = [
            number(side["error_auroc"]["value"]),
            *(number(side["ranking"][name]) for name in ("fpr95", "aurc")),
            *(number(scores[name]["value"]) if name in scores else NOTHING for name in _SCORES),
        ]
        table.add_row(escape(side["model"]), escape(side["condition"]), *cells)
    return table


def _table(title: str) -> Table:
    return Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="italic", padding=0)


def _above_its_interval(found: Mapping[str, Any]) -> str:
    if found["value"] is None or found["low"] is None:
        return number(found["value"])
    return f"{number(found['value'])}\n{number(found['low'])}…{number(found['high'])}"
