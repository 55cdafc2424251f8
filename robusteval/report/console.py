"""The result table of one run, on standard output: at most 100 columns, plain text where it is not a terminal."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robusteval.report.flags import EXPLAINED, dagger
from robusteval.report.words import (
    NOTHING,
    interval,
    largest,
    number,
    percent,
    point_in_words,
    radius,
    seconds,
    stopped_in_words,
    threat_in_words,
)

_WIDTH = 100
_CURVE = 10  # intervals of a curve that get a line
_VERDICTS = {"pass": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}

CALIBRATION = (
    ("ece", "expected calibration error"),
    ("mce", "largest calibration error"),
    ("adaptive_ece", "adaptive calibration error"),
    ("classwise_ece", "classwise calibration error"),
    ("nll", "negative log-likelihood (nats)"),
    ("brier", "Brier score"),
    ("overconfidence", "overconfidence (mean confidence when wrong)"),
    ("underconfidence", "underconfidence (mean doubt when right)"),
)
CONFIDENCE = (
    ("mean", "mean confidence"),
    ("auroc", "AUROC, right from wrong by confidence"),
    ("fpr95", "FPR at 95 % TPR, same"),
    ("aurc", "area under risk-coverage"),
)


def terminal() -> Console:
    """Return the console for results: as wide as the terminal up to 100 columns, and 100 where there is none.

    Where standard output cannot encode a character (a log in ASCII), a question mark stands for it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if not sys.stdout.isatty():
        return Console(width=_WIDTH, highlight=False)
    console = Console(highlight=False)
    return Console(width=min(console.width, _WIDTH), highlight=False)


def show(results: dict[str, Any], folder: Path) -> None:
    """Print the results of results.json; the caller prints the folder's path after it."""
    console = terminal()
    console.print(_heading(results), soft_wrap=True)
    if "stopped" in results:
        console.print(escape(stopped_in_words(results["stopped"])), soft_wrap=True)
    console.print(accuracies(results))
    if dagger(results):
        console.print(EXPLAINED, style="bold red")
    console.print(quality(results))
    console.print(_cost(results))
    _checks(console, results["checks"])
    for sink in results["sinks"]:
        console.print(escape(sink_in_words(sink, folder)), soft_wrap=True)
    figures = folder / "figures"
    if figures.is_dir():
        console.print(f"figures in {escape(str(figures))}", soft_wrap=True)


def accuracies(results: dict[str, Any]) -> Table:
    """Return the table of rates: each with its 95 % interval and its counts."""
    clean, robust = results["clean"], results["robust"]
    table = _table("", "rate", "95 % interval", "images")
    _rate(table, "clean accuracy", clean["accuracy"])
    if "top5" in clean:
        _rate(table, "clean accuracy, top 5", clean["top5"])
    if (changed := results.get("transforms")) is not None:
        _rate(table, "clean accuracy without the transforms", changed["untransformed"]["accuracy"])
        cost = changed["cost"]
        table.add_row("  what they cost, in points", f"{100 * cost['value']:+.1f}", interval(cost), "paired")
    _rate(table, "robust accuracy" + dagger(results), robust["accuracy"], style="bold")
    for point in _chosen(robust.get("curve", ()), largest(results["threat"]["eps"])):
        _rate(table, f"robust accuracy at eps {radius(point['eps'])}", point)
    success = robust["attack_success"]
    counts = f"{success['broken']} of {success['n']} right"
    span = interval(success) if success["n"] else NOTHING
    table.add_row("attack success rate", percent(robust["attack_success_rate"]), span, counts)
    worst = min(robust["per_class"], key=lambda row: row["value"], default=None)
    if worst is not None:
        _rate(table, f"robust accuracy, worst class ({escape(str(worst.get('name', worst['class'])))})", worst)
    if survey := results.get("survey"):
        _survey(table, survey)
    if len({stage["stage"].partition("@")[0] for stage in robust["by_stage"]}) > 1:  # one attack's curve says it all
        for stage in robust["by_stage"]:
            table.add_row(f"  broken by {escape(stage['stage'])}", "", "", f"{stage['broken']} of {stage['entered']}")
    if robust.get("nonfinite"):
        table.add_row("logits not finite, counted as wrong", "", "", str(robust["nonfinite"]), style="yellow")
    return table


def quality(results: dict[str, Any]) -> Table:
    """Return the table of calibration and confidence, clean beside attacked, naming the attacked point."""
    clean, attacked = results["clean"], results["attacked"]
    table = _table("calibration and confidence", "clean", f"attacked ({point_in_words(attacked['point'])})")
    for part, rows in (("calibration", CALIBRATION), ("confidence", CONFIDENCE)):
        for key, words in rows:
            table.add_row(words, number(clean[part][key]), number(attacked[part][key]))
    if (before := results.get("transforms", {}).get("untempered")) is not None:
        for key, words in CALIBRATION[:1] + CALIBRATION[4:]:
            row = (number(before[point][key]) for point in ("clean", "attacked"))
            table.add_row(f"before the temperature: {words.partition(' (')[0]}", *row, style="dim")
    return table


def sink_in_words(sink: dict[str, Any], folder: Path) -> str:
    """Return one line on where a sink put the run, what went wrong there, and how to send it after all."""
    errors = f" ({'; '.join(sink['errors'])})" if sink["errors"] else ""
    match sink["mode"]:
        case "online":
            return f"{sink['name']}: {sink['where']}{errors}"
        case "offline":
            again = f"to send it: wandb login, then robusteval push {folder}"
            return f"{sink['name']}: kept offline in {folder / sink['where']}{errors}; {again}"
        case "disabled":
            return f"{sink['name']}: disabled"
        case _:
            return f"{sink['name']}: not sent{errors}"


def _checks(console: Console, checks: Sequence[dict[str, str]]) -> None:
    """Print the checks that want to be read, the worst first, and the names of those that passed."""
    said = [check for verdict in ("fail", "warn", "skipped") for check in checks if check["verdict"] == verdict]
    for check in said:
        advice = f" (what to do: {check['advice']})" if check.get("advice") else ""
        console.print(
            f"[{_VERDICTS[check['verdict']]}]{check['verdict']:7}[/] {escape(check['id'])}: "
            f"{escape(check['summary'] + advice)}"
        )
    if passed := [check["id"] for check in checks if check["verdict"] == "pass"]:
        console.print(f"[{_VERDICTS['pass']}]pass   [/] {escape(', '.join(passed))}")


def _heading(results: dict[str, Any]) -> str:
    model, dataset, attack = results["model"], results["dataset"], results["attack"]
    return (
        f"\n[bold]{escape(model['name'])}[/] on {escape(dataset['name'])} ({dataset['n']} images), "
        f"attack [bold]{escape(attack['name'])}[/], threat {escape(threat_in_words(results['threat']))}"
    )


def _cost(results: dict[str, Any]) -> str:
    cost = results["cost"]
    return (
        f"cost: {cost['forward_passes']} forward and {cost['backward_passes']} backward passes in "
        f"{seconds(cost['seconds'])}, {cost['passes_per_second']:.0f} passes a second"
    )


def _table(first: str, *others: str) -> Table:
    table = Table(first, box=SIMPLE_HEAD, pad_edge=False)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _rate(table: Table, name: str, rate: dict[str, Any], style: str | None = None) -> None:
    table.add_row(name, percent(rate["value"]), interval(rate), f"{rate['correct']} of {rate['n']}", style=style)


def _chosen(curve: Sequence[dict[str, Any]], eps: float | None) -> list[dict[str, Any]]:
    """Return every so-many-th point of a curve, and the one at ``eps``: the figure shows all."""
    step = max(1, -(-(len(curve) - 1) // _CURVE))
    return [point for i, point in enumerate(curve) if i % step == 0 or point["eps"] == eps]


def _survey(table: Table, survey: dict[str, Any]) -> None:
    worst = survey["worst"]
    if worst is not None:
        _rate(table, f"accuracy, one parameter for all (worst: {worst['parameter']:.4g})", worst)
    for row in survey.get("random", ()):
        if row["tries"] == 10:  # the published length of the random search
            table.add_row(
                "expected after 10 random tries", percent(row["value"]), f"± {100 * row['se']:.1f} (one run)", ""
            )
