"""Boards as text: a table of at most 100 columns, markdown, comma-separated values, JSON."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from robusteval.leaderboard.board import Board, Place
from robusteval.leaderboard.rows import Row
from robusteval.published import robustbench
from robusteval.report.rows import as_csv, as_markdown
from robusteval.report.words import NOTHING, hundredths

LEGEND = (
    "rank: by accuracy; ties: the ranks that 95 % sampling error leaves open (exact McNemar between runs on the same "
    "images, two proportions otherwise)",
    "† the number itself is doubtful: do not quote it before reading why; ≠ a run that departs from its own published "
    "entry; – not comparable, so without a rank",
)
_HEADINGS = ("rank", "ties", "model", "clean", "robust", "95 %", "notes")
_NAME = 41  # columns for the longest name of the zoo
_RIGHT = ("rank", "ties", "clean", "robust", "95 %")
_COLUMNS = (
    *("dataset", "norm", "eps", "rank", "tie_low", "tie_high", "model", "origin", "clean_accuracy", "robust_accuracy"),
    *(
        "robust_low",
        "robust_high",
        "n",
        "by",
        "comparable",
        "autoattack_accuracy",
        "failed",
        "disagrees",
        "differences",
    ),
    "run",
)


def source() -> str:
    """Return where the published entries come from, in a sentence."""
    facts = robustbench.facts()
    return (
        f"published: {facts['source']} at {facts['commit'][:7]} of {facts['committed']}, read {facts['read']}, "
        f"{facts['licence'].partition(',')[0]} licence; external accuracies before AutoAttack's"
    )


def table(board: Board) -> Table:
    """Return a board for a terminal; runs of ours are bold."""
    lines = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    longest = max((len(row.name) for row in board.rows), default=0)
    for heading in _HEADINGS:
        if heading in _RIGHT:
            lines.add_column(heading, justify="right", no_wrap=True)
        else:
            whole = heading == "model" and longest <= _NAME
            lines.add_column(heading, overflow="fold", no_wrap=whole)
    for row, place in zip(board.rows, board.places, strict=True):
        lines.add_row(*map(escape, _cells(row, place)), style="bold" if row.origin == "ours" else None)
    return lines


def markdown(boards: Iterable[Board]) -> str:
    """Return the boards as markdown, each with a heading; runs of ours are bold."""
    parts = []
    for board in boards:
        rows = []
        for row, place in zip(board.rows, board.places, strict=True):
            cells = _cells(row, place)
            rows.append([*cells[:2], f"**{cells[2]}**" if row.origin == "ours" else cells[2], *cells[3:]])
        parts.append(f"## {board.title}\n\n{as_markdown(_HEADINGS, rows, right=_RIGHT)}")
    return "\n".join([*parts, *(f"{line}\n" for line in (*LEGEND, source()))])


def csv(boards: Iterable[Board]) -> str:
    """Return one line for each row of all boards, with all digits; accuracies are fractions."""
    rows = []
    for board in boards:
        for row, place in zip(board.rows, board.places, strict=True):
            plain = as_plain(row, place)
            ties = plain.pop("ties") or [None, None]
            lists = {key: "; ".join(plain[key]) for key in ("failed", "disagrees", "differences")}
            here = {"dataset": board.dataset, "norm": board.norm, "eps": row.eps}
            rows.append({**here, **plain, "tie_low": ties[0], "tie_high": ties[1], **lists})
    return as_csv(_COLUMNS, rows)


def as_json(boards: Sequence[Board]) -> str:
    """Return the boards as JSON, as runs/README.md describes it."""
    content = {
        "schema": 1,
        "published": robustbench.facts(),
        "boards": [
            {
                "dataset": board.dataset,
                "norm": board.norm,
                "eps": board.eps,
                "attack": board.attack,
                "n": None if board.protocol is None else board.protocol.n,
                "rows": [as_plain(row, place) for row, place in zip(board.rows, board.places, strict=True)],
            }
            for board in boards
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def as_plain(row: Row, place: Place) -> dict[str, Any]:
    """Return a row as plain values."""
    entry = row.entry if row.origin == "robustbench" else None
    autoattack = None if entry is None or entry.autoattack_acc is None else entry.autoattack_acc / 100
    return {
        "rank": place.rank,
        "ties": None if place.low is None else [place.low, place.high],
        "model": row.name,
        "origin": row.origin,
        "clean_accuracy": row.clean,
        "robust_accuracy": row.robust,
        "robust_low": row.low,
        "robust_high": row.high,
        "n": row.n,
        "by": row.by,
        "comparable": row.comparable,
        "autoattack_accuracy": autoattack,
        "failed": list(row.doubts),
        "disagrees": list(row.disagrees),
        "differences": list(row.differences),
        "run": None if row.run is None else str(row.run.path),
    }


def ties(place: Place) -> str:
    """Return the ranks that sampling leaves open, nothing where it is one."""
    return "" if place.low is None or place.low == place.high else f"{place.low}–{place.high}"


def _cells(row: Row, place: Place) -> list[str]:
    return [
        NOTHING if place.rank is None else str(place.rank),
        ties(place),
        row.name,
        hundredths(row.clean),
        f"{hundredths(row.robust)}{f' {row.marks}' if row.marks else ''}",
        f"{100 * row.low:.1f}–{100 * row.high:.1f}",
        "; ".join(row.notes),
    ]
