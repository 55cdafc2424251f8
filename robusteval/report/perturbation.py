"""What the perturbations of a run look like: where they lie, how far the border differs, at which frequencies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from robusteval.report.canvas import ATTACKED, CLEAN, FAINT, INK, WORST, page, tidy
from robusteval.report.words import number, percent

Maps = Mapping[str, np.ndarray]


def draw_perturbation(path: Path, results: dict[str, Any], maps: Maps) -> Path:
    """Draw the mean absolute perturbation as a map with its profiles, the border ratios and the spectrum.

    ``results`` are those of results.json with at least one perturbation, ``maps`` what
    :func:`robusteval.evidence.forensics.maps` returns. Beside the map stand those of the input gradient, where noted.
    """
    found = results["perturbation"]
    salient = [name for name in ("clean", "attacked") if name in maps]
    with page(path, height=7.6) as figure:
        figure.set_layout_engine("constrained")
        mean, survived = found["mean_absolute"]["value"], found["rounding"]["survived"]
        said = f"{found['n']} adversarials, mean |perturbation| {number(mean)}"
        rounded = f"{percent(survived['value'])} of {survived['n']} survive rounding to 8 bits"
        figure.suptitle(f"{said}; {rounded}", fontsize=12, color=INK)
        width = 2 + len(salient)
        grid = figure.add_gridspec(2, 2 * width, height_ratios=(1.15, 1))
        panels = [figure.add_subplot(grid[0, 2 * k : 2 * k + 2]) for k in range(width)]
        _map(panels[0], maps["perturbation"], "mean |perturbation|")
        _profiles(panels[1], found)
        for axes, side in zip(panels[2:], salient, strict=True):
            _map(axes, maps[side], f"|gradient|, {side} ({found['saliency']['n']})")
        _borders(figure.add_subplot(grid[1, :width]), found)
        _spectrum(figure.add_subplot(grid[1, width:]), found)
    return path


def _map(axes: Axes, values: np.ndarray, title: str) -> None:
    drawn = axes.imshow(values, cmap="cividis", interpolation="nearest", vmin=0)
    axes.figure.colorbar(drawn, ax=axes, location="bottom", shrink=0.8, aspect=30)
    axes.set_title(title, fontsize=10, color=INK)
    axes.set_xticks([])
    axes.set_yticks([])


def _profiles(axes: Axes, found: dict[str, Any]) -> None:
    tidy(axes)
    for name, colour, line in (("rows", CLEAN, "-"), ("columns", ATTACKED, "--")):
        values = found[name]
        axes.plot(np.arange(len(values)), values, color=colour, linestyle=line, linewidth=1.4, label=name)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="row or column")
    axes.set_title("profiles of the map", fontsize=10, color=INK)
    axes.legend(fontsize=9, frameon=False, loc="lower center")


def _borders(axes: Axes, found: dict[str, Any]) -> None:
    tidy(axes)
    kinds: list[tuple[str, Sequence[dict[str, Any]], str]] = [("perturbation", found["border"], ATTACKED)]
    for side, colour in (("clean", CLEAN), ("attacked", WORST)):
        if "saliency" in found:
            kinds.append((f"input gradient, {side}", found["saliency"][side]["border"], colour))
    for place, (label, rows, colour) in enumerate(kinds):
        finite = [row for row in rows if row["ratio"]["value"] is not None]
        x = [row["ring"] + 0.13 * (place - (len(kinds) - 1) / 2) for row in finite]
        y = np.array([row["ratio"]["value"] for row in finite])
        ends = np.array([_ends(row["ratio"]) for row in finite])
        around = np.abs(ends.T - y) if finite else None
        axes.errorbar(x, y, around, fmt="o", markersize=5, capsize=3, color=colour, label=label)
    axes.axhline(1, color=FAINT, linestyle="--", linewidth=1)
    axes.set_xticks([row["ring"] for row in found["border"]])
    axes.set(xlabel="width of the ring in pixels", ylabel="border ratio (ring / interior)")
    axes.set_title("1: no anomaly at the border (95 % intervals over images)", fontsize=10, color=INK)
    axes.legend(fontsize=9, frameon=False, ncols=len(kinds), loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _ends(ratio: dict[str, Any]) -> list[float]:
    """Return the ends of an interval; one that is infinite is not drawn."""
    return [ratio["value"] if ratio[end] is None else ratio[end] for end in ("low", "high")]


def _spectrum(axes: Axes, found: dict[str, Any]) -> None:
    tidy(axes)
    rows = [row for row in found["radial"] if row["power"]]
    axes.plot([row["frequency"] for row in rows], [row["power"] for row in rows], color=ATTACKED)
    axes.set_yscale("log")
    for edge in (1 / 6, 1 / 3):
        axes.axvline(edge, color=FAINT, linestyle=":", linewidth=1)
    said = ", ".join(f"{row['band']} {percent(row['value'])}" for row in found["bands"])
    axes.set(xlabel="cycles a pixel", ylabel="power, averaged radially")
    axes.set_title(f"energy by band: {said}", fontsize=10, color=INK)
