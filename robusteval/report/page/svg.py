"""A few functions that write SVG: colours are classes of the style sheet, so that pictures follow light and dark."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 360
"""Units across of a chart: text of 12 units then stays readable on a telephone."""
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 28, 42


def tag(name: str, *children: str | Markup, **attributes: object) -> Markup:
    """Return an element; children that are not Markup are escaped, a last underscore of an attribute is dropped."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{given}>{''.join(map(str, map(escape, children)))}</{name}>")


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Scale:
    """From values in [low, high] to units from ``start`` to ``end``; ``bend`` is applied to values, such as a log."""

    low: float
    high: float
    start: float
    end: float
    bend: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        low, high = self.bend(self.low), self.bend(self.high)
        share = (self.bend(value) - low) / (high - low) if high > low else 0.0
        return self.start + share * (self.end - self.start)


def chart(height: float, label: str, *children: Markup) -> Markup:
    """Return a picture as wide as its column; ``label`` says to those who do not see it what it shows."""
    return tag("svg", *children, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=label, class_="chart")


def across(low: float, high: float) -> Scale:
    """Return the usual scale of x."""
    return Scale(low, high, LEFT, WIDTH - RIGHT)


def axes(
    x: Scale,
    y: Scale,
    *,
    x_ticks: Iterable[tuple[float, str]],
    y_ticks: Iterable[tuple[float, str]],
    x_label: str = "",
    y_label: str = "",
) -> Markup:
    """Return ticks with their faint lines, and the names of the axes."""
    parts = []
    for value, said in y_ticks:
        parts.append(tag("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", said, x=x.start - 6, y=y(value) + 4.0, class_="tick end"))
    for value, said in x_ticks:
        parts.append(tag("line", x1=x(value), x2=x(value), y1=y.start, y2=y.start + 4, class_="axis"))
        if said:
            parts.append(tag("text", said, x=x(value), y=y.start + 17, class_="tick middle"))
    parts.append(tag("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="axis"))
    if x_label:
        parts.append(tag("text", x_label, x=(x.start + x.end) / 2, y=y.start + 35, class_="name middle"))
    if y_label:  # lying above its axis it is read without turning the head
        parts.append(tag("text", y_label, x=0, y=y.end - 14, class_="name"))
    return Markup("").join(parts)


def path(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """Return a line through points in units."""
    return tag("path", d=_d(points), class_=f"line {class_}")


def band(points: Sequence[tuple[float, float, float]], class_: str) -> Markup:
    """Return the area between two lines: points (x, low, high) in units."""
    around = [(x, low) for x, low, _ in points] + [(x, high) for x, _, high in reversed(points)]
    return tag("path", d=_d(around) + "Z", class_=f"band {class_}")


def _d(points: Sequence[tuple[float, float]]) -> str:
    return "".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))


PERCENT = [(k / 5, f"{20 * k} %") for k in range(6)]
"""Ticks of an axis of fractions."""
