"""Bars that stand in a cell of a table: as wide as the cell, with the numbers beside them in text."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from robusteval.report.page.svg import tag


def bar(rate: Mapping[str, Any], colour: str, mark: float | None = None) -> Markup:
    """Return a rate as a bar with its 95 % interval as a whisker, and at ``mark`` another fraction as a tick."""
    value = rate["value"]
    if value is None:
        return _strip()
    parts = [
        tag("rect", x=0, y=3, width=100.0 * value, height=6, class_=f"fill {colour}"),
        tag("line", x1=100 * rate["low"], x2=100 * rate["high"], y1=6, y2=6, class_="whisker"),
    ]
    if mark is not None:
        parts.append(tag("line", x1=100 * mark, x2=100 * mark, y1=0, y2=12, class_="mark"))
    return _strip(*parts)


def fall(begin: float, end: float, colour: str) -> Markup:
    """Return one step of a waterfall: what lies between two fractions."""
    return _strip(tag("rect", x=100 * min(begin, end), y=1, width=100 * abs(end - begin), height=10, class_=colour))


def _strip(*parts: Markup) -> Markup:
    ground = tag("rect", x=0, y=3, width=100, height=6, class_="ground")
    return tag(
        "svg", ground, *parts, viewBox="0 0 100 12", preserveAspectRatio="none", class_="bar", aria_hidden="true"
    )
