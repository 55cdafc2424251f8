"""``robusteval summary``: one table over the complete runs of a folder."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from robusteval.errors import UserError
from robusteval.report.console import terminal
from robusteval.report.flags import EXPLAINED, dagger, flagged
from robusteval.report.rows import as_csv, as_markdown
from robusteval.report.runs import asked, begun, complete_runs
from robusteval.report.words import interval, largest, number, percent, threat_in_words

_TEXT, _NUMBERS = ("model", "dataset", "attack", "threat"), ("n", "clean", "robust", "95 %", "ECE", "attacked")


def summary(complete: Iterable[dict[str, Any]]) -> Table:
    """Return one line for each of the results, the same data and threat together, the most robust first."""
    table = Table(*_TEXT, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in _NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    for results in sorted(complete, key=_order):
        table.add_row(*map(escape, _row(results)))
    return table


def main(argv: Sequence[str]) -> int:
    """Run ``robusteval summary [DIR] [--format table|csv|md]``."""
    directory, kind = asked("summary", "One table over the complete runs of a folder.", argv)
    runs, (found, faults) = begun(directory), complete_runs(directory)
    complete = [results for _, results in found]
    if kind == "csv":
        rows = [_exact(results) for results in sorted(complete, key=_order)]
        sys.stdout.write(as_csv(_EXACT, rows))
    elif kind == "md":
        columns = ("ECE attacked" if name == "attacked" else name for name in (*_TEXT, *_NUMBERS))
        sys.stdout.write(as_markdown([*columns], map(_row, sorted(complete, key=_order)), right=_NUMBERS))
    else:
        _print(directory, complete, len(runs) - len(complete) - len(faults))
    if faults:
        raise UserError("; ".join(faults))
    return 0


def _print(directory: Path, complete: Sequence[dict[str, Any]], left: int) -> None:
    console, table = terminal(), summary(complete)
    if table.row_count:
        console.print(table)
    more = f", {left} not complete: see robusteval status {directory}" if left else ""
    console.print(
        escape(f"{directory}: {table.row_count} complete run{'s' * (table.row_count != 1)}{more}"), soft_wrap=True
    )
    if any(flagged(results) for results in complete):
        console.print(EXPLAINED)


def _row(results: dict[str, Any]) -> tuple[str, ...]:
    clean, robust = results["clean"], results["robust"]["accuracy"]
    return (
        results["model"]["name"],
        results["dataset"]["name"],
        results["attack"]["name"],
        threat_in_words(results["threat"]).removesuffix(", top1"),  # the usual goal, in a narrow column
        str(robust["n"]),
        percent(clean["accuracy"]["value"]),
        percent(robust["value"]) + dagger(results),
        interval(robust),
        number(clean["calibration"]["ece"]),
        number(results["attacked"]["calibration"]["ece"]),
    )


_EXACT = (
    *("model", "dataset", "attack", "norm", "eps", "goal", "n"),
    *("clean_accuracy", "robust_accuracy", "robust_low", "robust_high", "clean_ece", "attacked_ece", "attacked_point"),
    *("forward_passes", "backward_passes", "seconds", "failed_checks", "fingerprint"),
)


def _exact(results: dict[str, Any]) -> dict[str, object]:
    """Return the numbers of a run with all their digits; accuracies are fractions."""
    clean, robust, threat = results["clean"], results["robust"]["accuracy"], results["threat"]
    eps = threat["eps"]
    return {
        "model": results["model"]["name"],
        "dataset": results["dataset"]["name"],
        "attack": results["attack"]["name"],
        "norm": threat["norm"],
        "eps": " ".join(map(str, eps)) if isinstance(eps, Sequence) else eps,
        "goal": threat["goal"],
        "n": robust["n"],
        "clean_accuracy": clean["accuracy"]["value"],
        "robust_accuracy": robust["value"],
        "robust_low": robust["low"],
        "robust_high": robust["high"],
        "clean_ece": clean["calibration"]["ece"],
        "attacked_ece": results["attacked"]["calibration"]["ece"],
        "attacked_point": results["attacked"]["point"],
        "forward_passes": results["cost"]["forward_passes"],
        "backward_passes": results["cost"]["backward_passes"],
        "seconds": results["cost"]["seconds"],
        "failed_checks": " ".join(flagged(results)),
        "fingerprint": results["fingerprint"],
    }


def _order(results: dict[str, Any]) -> tuple[Any, ...]:
    threat, robust = results["threat"], results["robust"]["accuracy"]["value"]
    return (
        results["dataset"]["name"],
        threat["norm"],
        largest(threat["eps"]) or 0.0,
        results["attack"]["name"],
        -(robust or 0.0),
    )
