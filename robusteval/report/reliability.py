"""Reliability diagrams: is a confidence of 80 % right 80 % of the time, on clean and on attacked images?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from robusteval.metrics.accuracy import wilson
from robusteval.report.canvas import ATTACKED, CLEAN, FAINT, INK, MARGINS, page, tidy
from robusteval.report.words import point_in_words


def draw_reliability(path: Path, results: dict[str, Any]) -> Path:
    """Draw clean beside attacked: accuracy of each confidence bin with its 95 % interval, and how many images it holds.

    ``results`` are those of results.json; the bins are ``calibration.reliability`` of ``clean`` and ``attacked``.
    """
    attacked = f"attacked images ({point_in_words(results['attacked']['point'])})"
    sides = (("clean images", results["clean"], CLEAN), (attacked, results["attacked"], ATTACKED))
    with page(path, height=6.5) as figure:
        # Fixed margins: a layout engine would draw all the text twice more to measure it.
        grid = figure.add_gridspec(2, 2, height_ratios=(3, 1), **MARGINS, bottom=0.08, hspace=0.22, wspace=0.2)
        top: Axes | None = None
        for column, (title, part, colour) in enumerate(sides):
            upper = figure.add_subplot(grid[0, column])
            lower = figure.add_subplot(grid[1, column], sharex=upper)
            _accuracies(upper, part["calibration"], colour)
            _counts(lower, part["calibration"]["reliability"], colour, top)
            upper.set_title(f"{title}: {_headline(part['calibration'])}", fontsize=11, color=INK, parse_math=False)
            upper.legend(
                loc="upper left", bbox_to_anchor=(0, -0.05), ncols=3, fontsize=8.5, frameon=False, columnspacing=1.2
            )
            top = top or lower
        figure.align_ylabels()
    return path


def _accuracies(axes: Axes, calibration: dict[str, Any], colour: str) -> None:
    tidy(axes)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--", label="calibrated")
    bins = _filled(calibration["reliability"])
    axes.bar(
        [b["low"] for b in bins],
        [b["accuracy"] for b in bins],
        width=[b["high"] - b["low"] for b in bins],
        align="edge",
        color=colour,
        alpha=0.35,
        edgecolor="white",
        label="accuracy in bin",
    )
    if bins:
        x = [b["confidence"] for b in bins]
        y = np.array([b["accuracy"] for b in bins])
        ends = np.array([wilson(round(b["accuracy"] * b["n"]), b["n"]) for b in bins])
        around = np.abs(ends.T - y)
        axes.errorbar(x, y, around, fmt="o", markersize=4, color=colour, capsize=3, label="and its 95 % interval")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    axes.tick_params(labelbottom=False)


def _counts(axes: Axes, bins: Sequence[dict[str, Any]], colour: str, like: Axes | None) -> None:
    tidy(axes)
    bins = _filled(bins)
    drawn = axes.bar(
        [b["low"] for b in bins],
        [b["n"] for b in bins],
        width=[b["high"] - b["low"] for b in bins],
        align="edge",
        color=colour,
        alpha=0.7,
        edgecolor="white",
    )
    axes.bar_label(drawn, fontsize=7.5, color=INK, padding=1)
    axes.set(xlim=(0, 1), xlabel="confidence (largest softmax)", ylabel="images")
    axes.margins(y=0.2)
    if like is not None:  # the same scale on both sides, wide enough for either
        highest = max(axes.get_ylim()[1], like.get_ylim()[1])
        axes.set_ylim(0, highest)
        like.set_ylim(0, highest)


def _filled(bins: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [b for b in bins if b["n"]]


def _headline(calibration: dict[str, Any]) -> str:
    ece, n = calibration["ece"], sum(b["n"] for b in calibration["reliability"])
    return f"ECE {ece:.3f}, n = {n}" if ece is not None else "no images"
