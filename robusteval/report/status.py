"""``robusteval status``: what is done, running, failed and missing."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from robusteval.report.console import terminal
from robusteval.report.runs import directory_of, find, look

_STYLES = {"done": "green", "running": "cyan", "failed": "bold red", "damaged": "bold red"}


def status(directory: Path) -> Table:
    """Return one line for each run in a folder: its state, how many shards are done of how many, and a note."""
    table = Table("run", "state", "missing", "note", box=SIMPLE_HEAD, pad_edge=False)
    table.columns[2].justify = "right"
    table.columns[0].overflow = table.columns[3].overflow = "fold"
    for folder in find(directory):
        run = look(folder)
        missing = f"{run.planned - run.done} of {run.planned}" if run.planned else ""
        table.add_row(escape(folder.name), f"[{_STYLES[run.state]}]{run.state}[/]", missing, escape(run.note))
    return table


def main(argv: Sequence[str]) -> int:
    """Run ``robusteval status [DIR]``; exit code 0 whatever the runs' states are."""
    directory = directory_of("status", "What is done, running, failed and missing, from the files alone.", argv)
    console = terminal()
    states = Counter(look(folder).state for folder in find(directory))
    if states:
        console.print(status(directory))
    said = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    console.print(escape(f"{directory}: {said or 'no runs'}"), soft_wrap=True)
    return 0
