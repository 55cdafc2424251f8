"""The charts of a run that have axes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from robusteval.metrics.accuracy import wilson
from robusteval.report.page.svg import BOTTOM, PERCENT, TOP, Scale, across, axes, band, chart, path, tag
from robusteval.report.words import percent, radius

BINS = 30  # of the histogram of confidences
_UP = 220.0  # units of height of a chart's plane


def _up(low: float, high: float, top: float = TOP, height: float = _UP) -> Scale:
    return Scale(low, high, top + height, top)


def reliability(bins: Sequence[Mapping[str, Any]], colour: str, label: str) -> Markup:
    """Return accuracy over confidence, the diagonal of calibrated answers, and below how many images each bin has."""
    x, y = across(0, 1), _up(0, 1)
    most = max((row["n"] for row in bins), default=1)
    below = Scale(0, most, y.start + 82, y.start + 38)
    parts = [
        axes(x, y, x_ticks=[(k / 5, "") for k in range(6)], y_ticks=PERCENT, y_label="accuracy"),
        tag("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_="diagonal"),
    ]
    for row in bins:
        low, high = wilson(round(row["accuracy"] * row["n"]), row["n"])
        left, width = x(row["low"]) + 0.5, x(row["high"]) - x(row["low"]) - 1
        said = (
            f"confidence {percent(row['low'])} to {percent(row['high'])}: accuracy {percent(row['accuracy'])} "
            f"[{100 * low:.1f}, {100 * high:.1f}], mean confidence {percent(row['confidence'])}, {row['n']} images"
        )
        at = x(row["confidence"])
        parts.append(
            tag(
                "g",
                tag("title", said),
                tag("rect", x=left, y=y(row["accuracy"]), width=width, height=y(0) - y(row["accuracy"]),
                    class_=f"soft {colour}"),
                tag("line", x1=at, x2=at, y1=y(low), y2=y(high), class_=f"line {colour}"),
                tag("circle", cx=at, cy=y(row["accuracy"]), r=3, class_=f"fill {colour}"),
                tag("rect", x=left, y=below(row["n"]), width=width, height=below(0) - below(row["n"]),
                    class_=f"fill {colour}"),
            )
        )  # fmt: skip
    parts.append(axes(x, below, x_ticks=PERCENT, y_ticks=[(most, str(most))], x_label="confidence", y_label="images"))
    return chart(below.start + BOTTOM, label, *parts)


def confidences(right: np.ndarray, wrong: np.ndarray, most: int, label: str) -> Markup:
    """Return histograms of the confidences of right [n] and wrong [m] answers, counts up to ``most`` on a log scale."""
    x, y = across(0, 1), Scale(0, max(most, 1), TOP + _UP, TOP, bend=math.log1p)
    ticks = [(0, "0"), *((10**k, f"{10**k}") for k in range(7) if 10**k <= most)]
    edges = np.linspace(0, 1, BINS + 1)
    parts = [axes(x, y, x_ticks=PERCENT, y_ticks=ticks, x_label="confidence", y_label="images (log scale)")]
    for values, colour in ((right, "clean"), (wrong, "attacked")):
        counts = np.histogram(values, edges)[0]
        outline = [(x(0), y(0))]
        for low, high, n in zip(edges, edges[1:], counts.tolist(), strict=False):
            outline += [(x(low), y(n)), (x(high), y(n))]
        outline.append((x(1), y(0)))
        parts.append(band([(at, y(0), up) for at, up in outline], colour))
        parts.append(path(outline, f"{colour} {'dashed' if colour == 'attacked' else ''}"))
    return chart(y.start + BOTTOM, label, *parts)


def most_in_a_bin(*groups: np.ndarray) -> int:
    """Return the largest count of the histograms of these confidences, for one scale of several pictures."""
    edges = np.linspace(0, 1, BINS + 1)
    return max((int(np.histogram(group, edges)[0].max()) for group in groups), default=0)


def curve(
    points: Sequence[Mapping[str, Any]], *, key: str, levels: Mapping[str, float], marked: float | None, x_label: str,
    colour: str, label: str,
) -> Markup:  # fmt: skip
    """Return {key, value, low, high} points as a line with its band, horizontal levels, and one point marked."""
    where = [point[key] for point in points]
    x, y = across(min(where), max(where)), _up(0, 1)
    parts = [
        axes(x, y, x_ticks=_ticks(where, key), y_ticks=PERCENT, x_label=x_label, y_label="accuracy"),
        band([(x(point[key]), y(point["low"]), y(point["high"])) for point in points], colour),
        *(tag("line", x1=x.start, x2=x.end, y1=y(at), y2=y(at), class_=f"level {name}") for name, at in levels.items()),
        path([(x(point[key]), y(point["value"])) for point in points], colour),
    ]
    for point in points:
        if point[key] != marked and len(points) > 40:
            continue
        said = f"{point[key]:.4g}: {percent(point['value'])} [{100 * point['low']:.1f}, {100 * point['high']:.1f}]"
        big = point[key] == marked
        dot = tag("circle", tag("title", said), cx=x(point[key]), cy=y(point["value"]), r=5 if big else 3,
                  class_=f"fill {'ink' if big else colour}")  # fmt: skip
        parts.append(dot)
    return chart(y.start + BOTTOM, label, *parts)


def _ticks(values: Sequence[float], key: str) -> list[tuple[float, str]]:
    """Return about five ticks: the values themselves where they are few, else round numbers between them."""
    if len(values) <= 5:
        return [(value, radius(value) if key == "eps" else f"{value:g}") for value in values]
    low, high = min(values), max(values)
    step = 10.0 ** math.floor(math.log10((high - low) or 1.0))
    step = next(step * part for part in (0.2, 0.5, 1, 2) if (high - low) / (step * part) <= 6)
    first = math.ceil(low / step - 1e-9)
    return [(k * step, f"{k * step:.10g}") for k in range(first, math.floor(high / step + 1e-9) + 1)]
