"""``robusteval compare RUN RUN ...``: which of several runs on the same images is more robust, and how sure that is."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from robusteval.errors import UserError
from robusteval.evidence.folder import RunFolder
from robusteval.report.comparison import Compared, compare, disagreements, load
from robusteval.report.console import terminal
from robusteval.report.flags import EXPLAINED
from robusteval.report.pair_rows import CLASS, PAIR, RUN, STAGE, Layout, classes, pairs, runs, stages
from robusteval.report.rows import as_csv, as_markdown
from robusteval.report.words import points, probability

_CLASSES = 12  # classes that a table shows; csv and json have all


def main(argv: Sequence[str]) -> int:
    """Compare complete runs pair by pair and print it; exit code 0 whoever is better."""
    given = _asked(argv)
    if len(given.runs) < 2:
        raise UserError(f"{given.runs[0]} is one run; name two or more to compare")
    compared = load([RunFolder.open(path) for path in given.runs])
    if given.by == "images":
        _print_rows(_images(compared), disagreements(compared), given.format)
        return 0
    found = compare(compared, given.seed)
    if given.by is None and given.format == "json":
        print(json.dumps(found, indent=2, allow_nan=False))
    elif given.by is None and given.format == "table":
        _show(found, terminal())
    elif given.by == "pairs" and given.format == "table":
        _show_pairs(pairs(found), terminal())
    else:
        layout, rows = {"classes": (CLASS, classes), "stages": (STAGE, stages)}.get(given.by or "", (PAIR, pairs))
        _print_rows(layout, rows(found), given.format)
    return 0


def _asked(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="robusteval compare",
        description="Compare complete runs on the same images: difference of robust and clean accuracy with 95 % "
        "intervals, exact McNemar test (adjusted by Holm for several pairs), and error consistency.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--format", choices=("table", "md", "csv", "json"), default="table", help="csv has all digits")
    parser.add_argument(
        "--by", choices=("pairs", "classes", "stages", "images"), help="one kind of row only; images: the ones that "
        "some survive and others do not"
    )  # fmt: skip
    parser.add_argument("--ids", action="store_const", dest="by", const="images", help="short for --by images")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (0)")
    return parser.parse_args(argv)


def _images(compared: Sequence[Compared]) -> Layout:
    return Layout(text=(), numbers=("id", "label"), more=tuple(run.letter for run in compared))


def _print_rows(layout: Layout, rows: Sequence[dict[str, Any]], kind: str) -> None:
    match kind:
        case "csv":
            sys.stdout.write(as_csv(layout.exact(rows), rows))
        case "json":
            print(json.dumps(rows, indent=2, allow_nan=False))
        case "md":
            sys.stdout.write(as_markdown(layout.columns, map(layout.words, rows), right=layout.numbers))
        case _:
            terminal().print(layout.table(rows))


def _show(found: dict[str, Any], console: Console) -> None:
    images = found["images"]
    console.print(escape(f"\nthe same {images['n']} images of {images['name']}"), soft_wrap=True)
    console.print(RUN.table(runs(found)))
    for run in found["runs"]:
        console.print(escape(f"{run['run']}: {run['folder']}"), soft_wrap=True)
    for line in _notes(found):
        console.print(escape(line), soft_wrap=True)
    several = len(found["pairs"]) > 1
    if several:
        _show_pairs(pairs(found), console)
    else:
        console.print(PAIR.table(pairs(found), without=["pair", "p, Holm"], title="A − B"))
        (pair,) = found["pairs"]
        console.print(STAGE.table(stages(found), without=["pair"]))
        rows = sorted(classes(found), key=lambda row: (row["p"], -abs(row["first"] - row["second"])))
        console.print(CLASS.table(rows[:_CLASSES], without=["pair"]))
        if len(rows) > _CLASSES:
            console.print(f"{len(rows) - _CLASSES} classes more: --by classes")
        console.print(escape(verdict(pair)), soft_wrap=True)
    counted = found["difficulty"]
    console.print(
        f"{counted['all']} images survive in all runs, {counted['none']} in none, {counted['some']} in some: --ids "
        "lists those"
    )


def _show_pairs(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print a table for each kind of accuracy, so that the pairs stand below each other."""
    for what in dict.fromkeys(row["accuracy"] for row in rows):
        chosen = [row for row in rows if row["accuracy"] == what]
        adjusted = chosen[0]["p_holm"] is not None
        kind, _, at = what.partition(", ")
        title = (
            f"{kind} accuracy"
            + (f" at {at}" if at else "")
            + (f", p adjusted for {len(chosen)} pairs" if adjusted else "")
        )
        console.print(PAIR.table(chosen, without=["accuracy", *([] if adjusted else ["p, Holm"])], title=title))


def _notes(found: dict[str, Any]) -> Iterator[str]:
    different = [entry for entry in found["differences"] if entry["field"] not in ("model", "attack", "threat")]
    if different:
        yield "they also differ in " + "; ".join(
            f"{entry['field']} ({', '.join('none' if value is None else str(value) for value in entry['values'])})"
            for entry in different
        )
    if any(entry["field"] == "threat" for entry in found["differences"]):
        yield "their threats differ: each robust accuracy answers a question of its own"
    if any(run["failed_checks"] for run in found["runs"]):
        yield EXPLAINED


def verdict(pair: dict[str, Any]) -> str:
    """Return in a sentence which of two runs is more robust, or that these images do not tell."""
    robust, first, second = pair["robust"], pair["first"], pair["second"]
    better, worse = (first, second) if robust["only_first"] > robust["only_second"] else (second, first)
    gained, lost = max(robust["only_first"], robust["only_second"]), min(robust["only_first"], robust["only_second"])
    gap, p = robust["difference"], probability(robust["p"])
    counted = f"{better} alone survives on {gained} images, {worse} alone on {lost}"
    if robust["p"] < 0.05:
        return f"{better} is more robust than {worse}, by {100 * abs(gap['value']):.1f} points: {counted} (p {p})"
    if not gained:
        return f"{first} and {second} survive on exactly the same images"
    return (
        f"these {robust['n']} images do not tell {first} from {second}: {counted} (p {p}), and differences from "
        f"{points(gap['low'])} to {points(gap['high'])} points remain possible"
    )
