"""Boards as one self-contained page: nothing is loaded, every name is escaped, each table sorts by a click."""

from collections.abc import Sequence
from html import escape

from robusteval.leaderboard import text
from robusteval.leaderboard.board import Board, Place
from robusteval.leaderboard.rows import Row
from robusteval.report.words import NOTHING

_HEADINGS = ("rank", "ties", "model", "clean %", "robust %", "95 % interval", "n", "by", "notes")

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --ours: #ffd75e40; --bar: #4a90d980; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 75rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
.number { text-align: right; white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
tr.ours { background: var(--ours); font-weight: 600; }
td.notes { font-weight: 400; font-size: .9em; min-width: 14rem; }
svg { display: block; width: 7rem; height: .6rem; } svg line { stroke: currentColor; stroke-width: 1; opacity: .25; }
svg rect { fill: var(--bar); }
footer { font-size: .9em; margin-top: 2rem; opacity: .8; }
"""

_SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, body = head.closest("table").tBodies[0];
  const column = head.cellIndex, up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => row.cells[column].dataset.key ?? row.cells[column].textContent;
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)], [p, q] = [parseFloat(x), parseFloat(y)];
    if (x === "" || y === "") return (x === "") - (y === "");  // what has no value stays last
    const order = isNaN(p) || isNaN(q) ? x.localeCompare(y) : p - q;
    return up ? order : -order;
  };
  body.append(...[...body.rows].sort(compare));
});
"""


def page(boards: Sequence[Board]) -> str:
    """Return the boards as an HTML page; runs of ours are set off, intervals drawn from 0 to 100 %."""
    tables = "".join(f"<h2>{escape(board.title)}</h2>\n<div class=wide>{_table(board)}</div>\n" for board in boards)
    notes = "".join(f"<p>{escape(line)}</p>\n" for line in (*text.LEGEND, text.source()))
    return (
        '<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<meta name=viewport content="width=device-width">\n'
        f"<title>Leaderboard</title>\n<style>{_STYLE}</style>\n<h1>Leaderboard</h1>\n{tables}"
        f"<footer>\n{notes}</footer>\n<script>{_SCRIPT}</script>\n</html>\n"
    )


def _table(board: Board) -> str:
    numeric = ("rank", "ties", "clean %", "robust %", "n")
    heads = "".join(
        f"<th{' class=number' if heading in numeric else ''}><button>{escape(heading)}</button></th>"
        for heading in _HEADINGS
    )
    rows = "\n".join(_row(row, place) for row, place in zip(board.rows, board.places, strict=True))
    return f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _row(row: Row, place: Place) -> str:
    rank = NOTHING if place.rank is None else str(place.rank)
    cells = [
        _number(rank, place.rank),
        _number(text.ties(place), place.low),
        f"<td>{_name(row)}</td>",
        _number(text.percent(row.clean), row.clean),
        _number(f"{text.percent(row.robust)}{f' {row.marks}' if row.marks else ''}", row.robust),
        f'<td data-key="{row.low}">{100 * row.low:.1f}–{100 * row.high:.1f}{_bar(row)}</td>',
        _number(str(row.n), row.n),
        f"<td>{escape(row.by)}</td>",
        f"<td class=notes>{escape('; '.join(row.notes))}</td>",
    ]
    return f"<tr{' class=ours' if row.origin == 'ours' else ''}>{''.join(cells)}</tr>"


def _name(row: Row) -> str:
    """Return the name, with its paper and a link to it where it was published."""
    entry, name = row.entry, escape(row.name)
    if row.origin == "ours" or entry is None or not entry.link.startswith("https://"):
        return name
    return (
        f'<a href="{escape(entry.link)}" rel=noreferrer title="{escape(entry.title)}, {escape(entry.venue)}">{name}</a>'
    )


def _number(shown: str, key: float | None) -> str:
    return f'<td class=number data-key="{"" if key is None else key}">{escape(shown)}</td>'


def _bar(row: Row) -> str:
    """Return the interval as a bar on a line from 0 to 100 %."""
    left, width = 100 * row.low, max(100 * (row.high - row.low), 0.8)
    return (
        '<svg viewBox="0 0 100 6" preserveAspectRatio=none aria-hidden=true><line x1=0 x2=100 y1=3 y2=3 />'
        f'<rect x="{left:.2f}" width="{width:.2f}" y=0 height=6 /></svg>'
    )
