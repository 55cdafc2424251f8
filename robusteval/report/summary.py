"""``robusteval summary``: one table over the complete runs of a folder."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from robusteval.errors import UserError
from robusteval.evidence.folder import RunFolder
from robusteval.report.console import terminal
from robusteval.report.rows import as_csv, as_markdown
from robusteval.report.runs import asked, begun, find
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
    runs, (complete, faults) = begun(directory), _complete(directory)
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
    if any(_flagged(results) for results in complete):
        console.print("† a check failed: do not quote this number before reading why")


def _row(results: dict[str, Any]) -> tuple[str, ...]:
    clean, robust = results["clean"], results["robust"]["accuracy"]
    return (
        results["model"]["name"],
        results["dataset"]["name"],
        results["attack"]["name"],
        threat_in_words(results["threat"]).removesuffix(", top1"),  # the usual goal, in a narrow column
        str(robust["n"]),
        percent(clean["accuracy"]["value"]),
        percent(robust["value"]) + (" †" if _flagged(results) else ""),
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
        "failed_checks": " ".join(check["id"] for check in results["checks"] if check["verdict"] == "fail"),
        "fingerprint": results["fingerprint"],
    }


def _flagged(results: dict[str, Any]) -> bool:
    return any(check["verdict"] == "fail" for check in results["checks"])


def _complete(directory: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the results of the complete runs, and a sentence on each that cannot be read."""
    complete, faults = [], []
    for run in (RunFolder(path) for path in find(directory)):
        if run.complete:
            try:
                complete.append(_checked(run))
            except UserError as error:
                faults.append(str(error))
    return complete, faults


def _checked(run: RunFolder) -> dict[str, Any]:
    results = run.results()
    if results.get("schema") != 1:
        schema = results.get("schema")
        raise UserError(f"{run.results_file} has schema {schema}, this version reads 1; use the version that wrote it")
    return results


def _order(results: dict[str, Any]) -> tuple[Any, ...]:
    threat, robust = results["threat"], results["robust"]["accuracy"]["value"]
    return (
        results["dataset"]["name"],
        threat["norm"],
        largest(threat["eps"]) or 0.0,
        results["attack"]["name"],
        -(robust or 0.0),
    )
