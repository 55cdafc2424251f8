"""``robusteval summary``: one table over the complete runs of a folder."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from robusteval.errors import UserError
from robusteval.evidence.folder import RunFolder
from robusteval.report.console import terminal
from robusteval.report.runs import directory_of, find
from robusteval.report.words import interval, largest, number, percent, threat_in_words


def summary(complete: Iterable[dict[str, Any]]) -> Table:
    """Return one line for each of the results, the same data and threat together, the most robust first."""
    table = Table("model", "dataset", "attack", "threat", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("n", "clean", "robust", "95 %", "ECE", "attacked"):
        table.add_column(name, justify="right", no_wrap=True)
    for results in sorted(complete, key=_order):
        clean, robust = results["clean"], results["robust"]["accuracy"]
        flagged = any(check["verdict"] == "fail" for check in results["checks"])
        table.add_row(
            escape(results["model"]["name"]),
            escape(results["dataset"]["name"]),
            escape(results["attack"]["name"]),
            escape(threat_in_words(results["threat"]).removesuffix(", top1")),  # the usual goal, in a narrow column
            str(robust["n"]),
            percent(clean["accuracy"]["value"]),
            percent(robust["value"]) + (" †" if flagged else ""),
            interval(robust),
            number(clean["calibration"]["ece"]),
            number(results["attacked"]["calibration"]["ece"]),
        )
    return table


def main(argv: Sequence[str]) -> int:
    """Run ``robusteval summary [DIR]``."""
    directory = directory_of("summary", "One table over the complete runs of a folder.", argv)
    console = terminal()
    runs, (complete, faults) = find(directory), _complete(directory)
    table = summary(complete)
    if table.row_count:
        console.print(table)
    left = len(runs) - table.row_count - len(faults)
    more = f", {left} not complete: see robusteval status {directory}" if left else ""
    console.print(
        escape(f"{directory}: {table.row_count} complete run{'s' * (table.row_count != 1)}{more}"), soft_wrap=True
    )
    if any("†" in str(cell) for column in table.columns for cell in column.cells):
        console.print("† a check failed: do not quote this number before reading why")
    if faults:
        raise UserError("; ".join(faults))
    return 0


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
