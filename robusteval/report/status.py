"""``robusteval status``: what is done, running, failed and missing."""

import sys
from collections import Counter
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from robusteval.report.console import terminal
from robusteval.report.rows import as_csv, as_markdown
from robusteval.report.runs import Progress, asked, survey

_STYLES = {
    "done": "green",
    "running": "cyan",
    "failed": "bold red",
    "interrupted": "yellow",
    "incomplete": "yellow",
    "missing": "yellow",
    "damaged": "bold red",
}
_COLUMNS = ("run", "state", "missing", "note")


def status(runs: Sequence[Progress]) -> Table:
    """Return one line for each run: its state, how many chunks are missing of how many, and a note."""
    table = Table(*_COLUMNS, box=SIMPLE_HEAD, pad_edge=False)
    table.columns[2].justify = "right"
    table.columns[0].overflow = table.columns[3].overflow = "fold"
    for run in runs:
        name, state, missing, note = _row(run)
        table.add_row(escape(name), f"[{_STYLES[state]}]{state}[/]", missing, escape(note))
    return table


def main(argv: Sequence[str]) -> int:
    """Run ``robusteval status [DIR] [--format table|csv|md]``; exit code 0 whatever the runs' states are."""
    directory, kind = asked("status", "What is done, running, failed and missing, from the files alone.", argv)
    runs = survey(directory)
    if kind == "csv":
        columns = ("run", "state", "done", "planned", "note")
        rows = ({"run": run.folder.name, **{name: getattr(run, name) for name in columns[1:]}} for run in runs)
        sys.stdout.write(as_csv(columns, rows))
        return 0
    if kind == "md":
        sys.stdout.write(as_markdown(_COLUMNS, map(_row, runs), right=["missing"]))
        return 0
    console = terminal()
    if runs:
        console.print(status(runs))
    states = Counter(run.state for run in runs)
    said = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    console.print(escape(f"{directory}: {said or 'no runs'}"), soft_wrap=True)
    return 0


def _row(run: Progress) -> tuple[str, str, str, str]:
    missing = f"{run.planned - run.done} of {run.planned} chunks" if run.planned else ""
    return run.folder.resolve().name, run.state, missing, run.note
