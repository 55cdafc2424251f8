"""Boards as one self-contained page: nothing is loaded, every name is escaped, each table sorts by a click."""

from collections.abc import Sequence
from typing import Any

from robusteval.leaderboard import text
from robusteval.leaderboard.board import Board, Place
from robusteval.leaderboard.rows import Row
from robusteval.report.page.html import render


def page(boards: Sequence[Board]) -> str:
    """Return the boards as an HTML page; runs of ours are set off, and the published ones lead to their papers."""
    published = any(row.origin == "robustbench" for board in boards for row in board.rows)
    return render(
        "leaderboard.html",
        title="Leaderboard",
        boards=[
            {"title": board.title, "rows": [_row(*pair) for pair in zip(board.rows, board.places, strict=True)]}
            for board in boards
        ],
        legend=text.LEGEND,
        source=text.source() if published else "",
    )


def _row(row: Row, place: Place) -> dict[str, Any]:
    entry = row.entry if row.origin == "robustbench" else None
    return {
        "ours": row.origin == "ours",
        "rank": place.rank,
        "low": place.low,
        "ties": text.ties(place),
        "name": row.name,
        "link": entry.link if entry is not None and entry.link.startswith("https://") else None,
        "paper": "" if entry is None else f"{entry.title}, {entry.venue}",
        "clean": row.clean,
        "rate": {"value": row.robust, "low": row.low, "high": row.high},
        "marks": row.marks,
        "n": row.n,
        "by": row.by,
        "notes": row.notes,
    }
