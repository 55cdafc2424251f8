"""The figure of a confidence study: a column for each condition, a colour for each network."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robusteval.metrics.accuracy import wilson
from robusteval.metrics.calibration import reliability
from robusteval.metrics.detection import SCORES
from robusteval.metrics.predictions import Predictions
from robusteval.report.canvas import ATTACKED, CLEAN, FAINT, INK, WORST, page, tidy

if TYPE_CHECKING:
    from robusteval.report.confidence_study import Side

_COLOURS = (CLEAN, ATTACKED, WORST, "#009E73", "#E69F00", "#56B4E9", INK)
_LINES: tuple[Literal["-", "--", "-.", ":"], ...] = ("-", "--", "-.", ":")
_QUANTITIES = {
    "gap": "confidence − accuracy",
    "overconfidence": "E[conf. | wrong]",
    "underconfidence": "E[1−conf. | right]",
}


def draw_study(path: Path, sides: "Sequence[Side]", study: dict[str, Any]) -> Path:
    """Draw, condition by condition, reliability, the ROC of confidence for right answers, and risk over coverage.

    Below, over- and underconfidence with intervals, and how well each score tells attacked images from clean ones.
    """
    conditions = list(dict.fromkeys(side.condition for side in sides))
    models = list(dict.fromkeys(side.model for side in sides))
    styles = {model: (_COLOURS[k % 7], _LINES[k // 7 % 4]) for k, model in enumerate(models)}
    with page(path, height=12.5) as figure:
        figure.set_layout_engine("constrained")
        width = len(conditions)
        grid = figure.add_gridspec(4, 2 * width, height_ratios=(1, 1, 1, 1.15))
        for column, condition in enumerate(conditions):
            cells = [figure.add_subplot(grid[row, 2 * column : 2 * column + 2]) for row in range(3)]
            cells[0].set_title(condition, fontsize=12, color=INK, parse_math=False)
            for side in sides:
                if side.condition == condition:
                    _reliability(cells[0], side.answers, side.model, styles[side.model])
                    _ranking(cells[1], cells[2], side.answers, styles[side.model])
            _finish(cells, first=column == 0)
        handles = [
            Line2D([], [], color=colour, linestyle=line, marker="o", label=m) for m, (colour, line) in styles.items()
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=11)
        _intervals(figure.add_subplot(grid[3, :width]), study["sides"], conditions, styles)
        _detection(figure.add_subplot(grid[3, width:]), study["detection"], styles)
    return path


def _finish(cells: Sequence[Axes], *, first: bool) -> None:
    reliable, roc, risk = cells
    for axes in cells:
        tidy(axes)
        axes.set_xlim(0, 1)
    reliable.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1)
    roc.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1)
    reliable.set(ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy" if first else "")
    roc.set(ylim=(0, 1.02), xlabel="wrong answers kept", ylabel="right answers kept" if first else "")
    risk.set(ylim=(0, 1.02), xlabel="coverage, most confident first", ylabel="share wrong" if first else "")


def _reliability(axes: Axes, answers: Predictions, model: str, style: tuple[str, str]) -> None:
    kept = answers.finite()
    bins = reliability(kept.confidences, kept.correct)
    x, y = [row["confidence"] for row in bins], np.array([row["accuracy"] for row in bins])
    ends = np.array([wilson(round(row["accuracy"] * row["n"]), row["n"]) for row in bins]).reshape(-1, 2)
    axes.errorbar(
        x, y, np.abs(ends.T - y), fmt="o", markersize=3.5, capsize=2, linewidth=1, color=style[0], linestyle=style[1],
        label=model,
    )  # fmt: skip


def _ranking(roc: Axes, risk: Axes, answers: Predictions, style: tuple[str, str]) -> None:
    kept = answers.finite()
    order = np.argsort(-kept.confidences, kind="stable")
    right = kept.correct[order]
    if not len(right):
        return
    if right.any() and not right.all():
        hits, misses = np.cumsum(right) / right.sum(), np.cumsum(~right) / (~right).sum()
        roc.plot(np.r_[0, misses], np.r_[0, hits], color=style[0], linestyle=style[1])
    covered = np.arange(1, len(right) + 1)
    risk.plot(covered / len(right), np.cumsum(~right) / covered, color=style[0], linestyle=style[1])


def _intervals(axes: Axes, rows: Sequence[dict[str, Any]], conditions: Sequence[str], styles: dict[str, Any]) -> None:
    tidy(axes)
    step = len(conditions) + 1
    ticks = []
    for block, name in enumerate(_QUANTITIES):
        for row in rows:
            found, model = row[name], list(styles).index(row["model"])
            place = block * step + conditions.index(row["condition"])
            ticks.append((block * step + conditions.index(row["condition"]), row["condition"]))
            if found["value"] is not None:
                at = place + 0.22 * (model - (len(styles) - 1) / 2)
                _dot(axes, at, found, styles[row["model"]][0])
        axes.annotate(
            _QUANTITIES[name], ((block * step + step / 2 - 1), 1.03), xycoords=("data", "axes fraction"), ha="center",
            fontsize=9, color=INK,
        )  # fmt: skip
    axes.axhline(0, color=FAINT, linestyle="--", linewidth=1)
    axes.set_xticks([at for at, _ in ticks], [name for _, name in ticks], rotation=60, fontsize=8, parse_math=False)
    axes.set_ylabel("with 95 % intervals over images")


def _detection(axes: Axes, rows: Sequence[dict[str, Any]], styles: dict[str, Any]) -> None:
    tidy(axes)
    attacks = list(dict.fromkeys(row["condition"] for row in rows))
    step = len(SCORES) + 1
    ticks: list[tuple[float, str]] = []
    for row in rows:
        block, model = attacks.index(row["condition"]), list(styles).index(row["model"])
        for place, found in enumerate(row["scores"]):
            ticks.append((block * step + place, found["score"].replace("_", " ")))
            if found["value"] is not None:
                _dot(
                    axes, block * step + place + 0.22 * (model - (len(styles) - 1) / 2), found, styles[row["model"]][0]
                )
    for block, attack in enumerate(attacks):
        axes.annotate(
            f"clean against {attack}", (block * step + (step - 2) / 2, 1.03), xycoords=("data", "axes fraction"),
            ha="center", fontsize=9, color=INK,
        )  # fmt: skip
    axes.axhline(0.5, color=FAINT, linestyle="--", linewidth=1)
    axes.set_ylim(0, 1.02)
    axes.set_xticks([at for at, _ in ticks], [name for _, name in ticks], rotation=60, fontsize=8)
    axes.set_ylabel("AUROC of telling attacked images")


def _dot(axes: Axes, at: float, found: dict[str, Any], colour: str) -> None:
    value = found["value"]
    low, high = (value if found[end] is None else found[end] for end in ("low", "high"))
    axes.errorbar([at], [value], [[max(value - low, 0)], [max(high - value, 0)]], fmt="o", markersize=4, capsize=2.5,
                  color=colour)  # fmt: skip
