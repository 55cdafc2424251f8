"""The landscape of a one-parameter survey: which numbers fool how many images, overall and class by class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from robusteval.metrics.accuracy import wilson
from robusteval.metrics.survey import Fooling
from robusteval.report.canvas import ATTACKED, INK, page, tidy
from robusteval.report.curves import random_tries
from robusteval.report.parameters import parameter_of

_NAMED = 25  # so many classes have their names beside them


def draw_landscape(
    path: Path, results: dict[str, Any], survey: dict[str, Any], fooling: Fooling, names: list[str] | None
) -> Path:
    """Draw the share of originally right images that each number fools: overall with its interval, then each class.

    Where the survey is exhaustive, the expected accuracy of a random search of 1 to 50 tries stands beside it.
    """
    parameters = [point["parameter"] for point in survey["universal"]]
    sides = 2 if survey.get("random") else 1
    with page(path, height=7.0) as figure:
        figure.set_layout_engine("constrained")
        grid = figure.add_gridspec(2, sides, height_ratios=(1, 1.4), width_ratios=(1.7, 1)[:sides])
        upper = figure.add_subplot(grid[0, 0])
        _overall(upper, parameters, fooling)
        lower = figure.add_subplot(grid[1, 0], sharex=upper)
        _classes(lower, parameters, fooling, names)
        lower.set_xlabel(parameter_of(results["attack"]["name"]))
        if sides == 2:
            random_tries(figure.add_subplot(grid[:, 1]), results, survey)
    return path


def _overall(axes: Axes, parameters: Sequence[float], fooling: Fooling) -> None:
    n, fooled = int(fooling.n.sum()), fooling.fooled.sum(0).tolist()
    ends = np.array([wilson(k, n) for k in fooled])
    tidy(axes)
    axes.fill_between(parameters, ends[:, 0], ends[:, 1], color=ATTACKED, alpha=0.2, linewidth=0)
    axes.plot(parameters, [k / max(n, 1) for k in fooled], color=ATTACKED)
    axes.set_title(f"share of the {n} originally right images that one number for all fools", fontsize=11, color=INK)
    axes.set(ylabel="fooled, 95 % interval", ylim=(0, 1.02))
    axes.tick_params(labelbottom=False)


def _classes(axes: Axes, parameters: Sequence[float], fooling: Fooling, names: list[str] | None) -> None:
    shares = fooling.fooled / np.maximum(fooling.n, 1)[:, None]
    middle = (np.asarray(parameters[1:]) + np.asarray(parameters[:-1])) / 2
    first, last = (middle[0], middle[-1]) if len(middle) else (parameters[0], parameters[0])
    edges = np.r_[2 * parameters[0] - first, middle, 2 * parameters[-1] - last]
    if len(middle) == 0:
        edges = np.array([parameters[0] - 0.5, parameters[0] + 0.5])
    drawn = axes.pcolormesh(edges, np.arange(len(shares) + 1) - 0.5, shares, vmin=0, vmax=1, cmap="cividis")
    axes.invert_yaxis()
    axes.figure.colorbar(drawn, ax=axes, location="bottom", label="fooled, of each class", shrink=0.6, aspect=40)
    if len(shares) <= _NAMED:
        labels = [str(label) if names is None else names[label][:18] for label in fooling.labels.tolist()]
        axes.set_yticks(range(len(labels)), labels, fontsize=8, parse_math=False)
    axes.set_ylabel("class")
