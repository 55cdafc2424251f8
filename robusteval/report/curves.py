"""Curves of a one-parameter survey: accuracy over the threshold, and over the number of random tries."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from robusteval.report.canvas import ATTACKED, CLEAN, FAINT, INK, WORST, page, tidy
from robusteval.report.parameters import parameter_of
from robusteval.report.words import percent


def draw_survey(path: Path, results: dict[str, Any], survey: dict[str, Any]) -> Path:
    """Draw how accuracy falls under one transform for all images (left) and under random tries for each (right).

    ``survey`` is what :func:`robusteval.metrics.survey.survey` returns, of at least one image; the right side needs its
    ``random`` part.
    """
    sides = 2 if "random" in survey else 1
    with page(path, height=5.6) as figure:
        figure.set_layout_engine("constrained")
        left = figure.add_subplot(1, sides, 1)
        _universal(left, results, survey)
        if sides == 2:
            random_tries(figure.add_subplot(1, 2, 2, sharey=left), results, survey)
    return path


def _universal(axes: Axes, results: dict[str, Any], survey: dict[str, Any]) -> None:
    points, worst = survey["universal"], survey["worst"]
    x = [p["parameter"] for p in points]
    axes.fill_between(x, [p["low"] for p in points], [p["high"] for p in points], color=CLEAN, alpha=0.2, linewidth=0)
    axes.plot(x, [p["value"] for p in points], color=CLEAN, label="one number for all images, 95 % interval")
    label = f"worst for all: {percent(worst['value'])} at {worst['parameter']:.4g}"
    axes.plot(worst["parameter"], worst["value"], "o", color=ATTACKED, label=label)
    _levels(axes, results, survey)
    axes.set(xlabel=parameter_of(results["attack"]["name"]), ylabel="accuracy", title="universal")


def random_tries(axes: Axes, results: dict[str, Any], survey: dict[str, Any]) -> None:
    """Draw the expected accuracy of a random search over the number of its tries."""
    tries, solarized = survey["random"], results["attack"]["name"] == "solarize"
    x, y = [t["tries"] for t in tries], [t["value"] for t in tries]
    low = [max(0.0, t["value"] - 2 * t["se"]) for t in tries]
    high = [min(1.0, t["value"] + 2 * t["se"]) for t in tries]
    axes.fill_between(x, low, high, color=ATTACKED, alpha=0.2, linewidth=0)
    axes.plot(x, y, color=ATTACKED, label="expected accuracy, ± 2 standard errors of one run")
    published = next((t for t in tries if t["tries"] == 10), None)
    if published:
        words = "10 tries, as published" if solarized else "10 tries, the default"
        axes.plot(10, published["value"], "s", color=INK, label=f"{words}: {percent(published['value'])}")
    _levels(axes, results, survey)
    name = "random search (RandSol)" if solarized else "random search"
    axes.set(xlabel="random numbers tried for each image", ylabel="accuracy", title=f"{name}, in closed form")


def _levels(axes: Axes, results: dict[str, Any], survey: dict[str, Any]) -> None:
    clean, each = results["clean"]["accuracy"]["value"], survey["per_image"]["value"]
    tidy(axes)
    axes.axhline(clean, color=FAINT, linestyle="--", linewidth=1, label=f"clean: {percent(clean)}")
    axes.axhline(each, color=WORST, linestyle=":", linewidth=1.6, label=f"worst for each image: {percent(each)}")
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.13))
