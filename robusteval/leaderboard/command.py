"""``robusteval leaderboard``: runs ranked with ties, beside RobustBench's published entries."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from robusteval.errors import UserError
from robusteval.evidence.folder import RunFolder
from robusteval.leaderboard import text
from robusteval.leaderboard.board import Board, boards
from robusteval.leaderboard.model_info import model_info
from robusteval.leaderboard.page import page
from robusteval.leaderboard.rows import Row, of_run
from robusteval.published import robustbench
from robusteval.report.console import terminal
from robusteval.report.runs import find

_FORMATS = ("table", "md", "csv", "json", "html", "model_info")


def main(argv: Sequence[str]) -> int:
    """Run ``robusteval leaderboard [DIR] [--against robustbench]``; a run that cannot be read is told, exit code 2."""
    given = _parsed(argv)
    rows, faults = _rows(given.directory)
    if given.format == "model_info":
        sys.stdout.write(_exported(given.directory, rows, faults))
        return 0
    norm = None if given.threat is None else _norm(given.threat)
    found = boards(rows, against=given.against or (None if rows else "robustbench"), dataset=given.dataset, norm=norm)
    if not found:
        raise UserError(
            f"{given.directory}: no run and no published board is of "
            f"{' and '.join(filter(None, (given.dataset, given.threat)))}; leave out --dataset or --threat"
        )
    if given.format == "table":
        _print(found)
        if given.against and not any(map(_published, found)):
            terminal().print(f"RobustBench has published nothing on these; it has {escape(_boards_there())}")
    else:
        written = {"md": text.markdown, "csv": text.csv, "json": text.as_json, "html": page}[given.format]
        sys.stdout.write(written(found))
    if faults:
        raise UserError("; ".join(faults))
    return 0


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="robusteval leaderboard",
        description="Ranks complete runs with ties; without a run it shows the published boards alone.",
    )
    default = os.environ.get("ROBUSTEVAL_RUNS") or "runs"
    parser.add_argument("directory", nargs="?", type=Path, help=f"folder of runs, or a run ({default})")
    parser.add_argument("--against", choices=("robustbench",), help="beside the entries published there")
    parser.add_argument(
        "--format", choices=_FORMATS, default="table", help="html is a page of its own, model_info RobustBench's form"
    )
    parser.add_argument("--dataset", help="only boards of this dataset, such as cifar10")
    parser.add_argument("--threat", help="only boards of this norm: linf, l2, l1, unbounded, corruptions")
    given = parser.parse_args(argv)
    if given.directory is None:  # nobody named it, so it need not be there
        given.directory = Path(default) if Path(default).is_dir() else None
    return given


def _norm(threat: str) -> str:
    """Return the norm of a threat named as on the command line: linf of linf_8_255."""
    norm = threat.lower().partition("_")[0]
    known = ("linf", "l2", "l1", "unbounded", *map(str.lower, robustbench.THREATS.values()))
    if norm not in known:
        raise UserError(f"--threat {threat} is not known (known: {', '.join(dict.fromkeys(known))})")
    return norm


def _rows(directory: Path | None) -> tuple[list[Row], list[str]]:
    """Return the rows of the complete runs, and a sentence on each that cannot be used."""
    rows, faults = [], []
    for run in (RunFolder(path) for path in ([] if directory is None else find(directory))):
        if run.complete:
            try:
                rows.append(of_run(run))
            except UserError as error:
                faults.append(str(error))
    return rows, faults


def _exported(directory: Path | None, rows: Sequence[Row], faults: Sequence[str]) -> str:
    if faults:
        raise UserError("; ".join(faults))
    if directory is None or len(rows) != 1:
        raise UserError(
            f"--format model_info writes one run, and {directory or 'no folder'} has {len(rows)} complete; name one RUN"
        )
    return model_info(rows[0])


def _print(found: Sequence[Board]) -> None:
    console = terminal()
    for board in found:
        console.print(escape(board.title), style="bold")
        console.print(text.table(board))
    for line in (*text.LEGEND, *((text.source(),) if any(_published(board) for board in found) else ())):
        console.print(escape(line), style="dim")


def _boards_there() -> str:
    published = dict.fromkeys(board.title for board in boards([], against="robustbench", dataset=None, norm=None))
    return "; ".join(published)


def _published(board: Board) -> bool:
    return any(row.origin == "robustbench" for row in board.rows)
