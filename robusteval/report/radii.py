"""Robust accuracy over the radius of the ball."""

from pathlib import Path
from typing import Any

from robusteval.report.canvas import ATTACKED, FAINT, INK, page, tidy
from robusteval.report.words import largest, percent, radius

_MARKED = 12  # points that a dot each does not crowd


def draw_curve(path: Path, results: dict[str, Any]) -> Path:
    """Draw ``robust.curve`` of the results with its 95 % interval, and mark the radius that is quoted."""
    points, threat = results["robust"]["curve"], results["threat"]
    quoted = next(point for point in points if point["eps"] == largest(threat["eps"]))
    clean = results["clean"]["top5" if threat["goal"] == "top5" else "accuracy"]
    x = [point["eps"] for point in points]
    with page(path, height=5.0) as figure:
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        tidy(axes)
        band = ([point["low"] for point in points], [point["high"] for point in points])
        axes.fill_between(x, *band, color=ATTACKED, alpha=0.2, linewidth=0)
        axes.plot(
            x,
            [point["value"] for point in points],
            color=ATTACKED,
            marker="." if len(points) <= _MARKED else "",
            label=f"robust accuracy under {results['attack']['name']}, 95 % interval",
        )
        at = f"at eps {radius(quoted['eps'])}: {percent(quoted['value'])}"
        axes.plot(quoted["eps"], quoted["value"], "o", color=INK, label=at)
        axes.axhline(
            clean["value"], color=FAINT, linestyle="--", linewidth=1, label=f"clean: {percent(clean['value'])}"
        )
        axes.set(xlabel=f"eps ({threat['norm']})", ylabel="robust accuracy", ylim=(0, 1.02), xlim=(0, None))
        axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.13))
    return path
