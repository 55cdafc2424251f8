"""The rows of a comparison: with all digits for csv, in words for a table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from robusteval.report.flags import DAGGER
from robusteval.report.words import interval, number, percent, points, probability, radius, threat_in_words

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Columns of a table: names of ``text`` and ``numbers`` (to the right), then ``more`` of text.

    ``said`` makes the words of a column from a row; a column without is its value.
    """

    text: tuple[str, ...]
    numbers: tuple[str, ...]
    more: tuple[str, ...] = ()
    said: Mapping[str, Callable[[Row], str]] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        return self.text + self.numbers + self.more

    def words(self, row: Row) -> list[str]:
        """Return the cells of a row as they are printed."""
        return [self.said[name](row) if name in self.said else str(row.get(name, "")) for name in self.columns]

    def exact(self, rows: Sequence[Row]) -> list[str]:
        """Return the columns of csv: the keys of the rows, or the names of the columns where there is no row."""
        return list(dict.fromkeys(name for row in rows for name in row)) or list(self.columns)

    def table(self, rows: Iterable[Row], without: Sequence[str] = (), title: str | None = None) -> Table:
        """Return the rows as a table, leaving out the columns named ``without``."""
        table = Table(
            box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=title, title_justify="left", title_style="bold"
        )
        shown = [name for name in self.columns if name not in without]
        for name in shown:
            numeric = name in self.numbers
            table.add_column(name, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
        for row in rows:
            cells = dict(zip(self.columns, self.words(row), strict=True))
            table.add_row(*(escape(cells[name]) for name in shown))
        return table


def runs(found: Row) -> list[dict[str, Any]]:
    """Return a row for each run: what it is, and its two accuracies."""
    return list(found["runs"])


def pairs(found: Row) -> list[dict[str, Any]]:
    """Return, for each pair, a row for robust and one for clean accuracy, and one for each radius that both know."""
    rows = []
    for pair in found["pairs"]:
        parts = [("robust", pair["robust"]), ("clean", pair["clean"])]
        parts += [(f"robust, eps {radius(each['eps'])}", each) for each in pair["at"]]
        rows += [_pair(pair, what, part) for what, part in parts]
    return rows


def classes(found: Row) -> list[dict[str, Any]]:
    """Return a row for each pair and class."""
    return [{"pair": _name(pair), **row} for pair in found["pairs"] for row in pair["by_class"]]


def stages(found: Row) -> list[dict[str, Any]]:
    """Return a row for each pair, run and stage."""
    return [{"pair": _name(pair), **row} for pair in found["pairs"] for row in pair["by_stage"]]


def _name(pair: Row) -> str:
    return f"{pair['first']} − {pair['second']}"


def _pair(pair: Row, what: str, part: Row) -> dict[str, Any]:
    gap, consistency = part["difference"], part["consistency"]
    return {
        "pair": _name(pair),
        "accuracy": what,
        "eps": part.get("eps"),
        "n": part["n"],
        "difference": gap["value"],
        "low": gap["low"],
        "high": gap["high"],
        "bootstrap_low": gap["bootstrap_low"],
        "bootstrap_high": gap["bootstrap_high"],
        "both": part["both"],
        "only_first": part["only_first"],
        "only_second": part["only_second"],
        "neither": part["neither"],
        "p": part["p"],
        "p_holm": part.get("p_holm"),
        "kappa": consistency["kappa"],
        "kappa_low": consistency["low"],
        "kappa_high": consistency["high"],
    }


def _span(low: float, high: float) -> str:
    return f"{points(low)} – {points(high)}"


RUN = Layout(
    text=("run", "model", "attack", "threat"),
    numbers=("clean", "robust", "95 %"),
    said={
        "threat": lambda row: threat_in_words(row["threat"]).removesuffix(", top1"),
        "clean": lambda row: percent(row["clean"]["value"]),
        "robust": lambda row: percent(row["robust"]["value"]) + (f" {DAGGER}" if row["failed_checks"] else ""),
        "95 %": lambda row: interval(row["robust"]),
    },
)

PAIR = Layout(
    text=("pair", "accuracy"),
    numbers=("points", "95 %", "bootstrap", "only each", "p", "p, Holm", "kappa", "its 95 %"),
    said={
        "points": lambda row: points(row["difference"]),
        "95 %": lambda row: _span(row["low"], row["high"]),
        "bootstrap": lambda row: _span(row["bootstrap_low"], row["bootstrap_high"]),
        "only each": lambda row: f"{row['only_first']} | {row['only_second']}",
        "p": lambda row: probability(row["p"]),
        "p, Holm": lambda row: probability(row["p_holm"]),
        "kappa": lambda row: number(row["kappa"]),
        "its 95 %": lambda row: f"{number(row['kappa_low'])} – {number(row['kappa_high'])}",
    },
)

CLASS = Layout(
    text=("pair", "class"),
    numbers=("n", "first", "second", "only first", "only second", "p", "p, Holm"),
    said={
        "class": lambda row: str(row.get("name", row["class"])),
        "first": lambda row: percent(row["first"]),
        "second": lambda row: percent(row["second"]),
        "only first": lambda row: str(row["only_first"]),
        "only second": lambda row: str(row["only_second"]),
        "p": lambda row: probability(row["p"]),
        "p, Holm": lambda row: probability(row["p_holm"]),
    },
)

STAGE = Layout(
    text=("pair", "run", "stage"),
    numbers=("broken", "of these the other survives"),
    said={
        "broken": lambda row: str(row["fell"]),
        "of these the other survives": lambda row: str(row["other_survives"]),
    },
)
