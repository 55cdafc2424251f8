"""How confident right and wrong answers are: where the two overlap, confidence does not warn of errors."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from robusteval.report.canvas import ATTACKED, CLEAN, INK, MARGINS, page, tidy
from robusteval.report.words import number, point_in_words

_BINS = np.linspace(0, 1, 31)


def draw_confidence(path: Path, results: dict[str, Any], samples: pa.Table) -> Path:
    """Draw histograms of the confidence of right and wrong answers, clean beside attacked.

    ``samples`` is samples.parquet; rows without a finite confidence are left out.
    """
    label = samples["label"].to_numpy()
    attacked = f"attacked images ({point_in_words(results['attacked']['point'])})"
    with page(path, height=4.2) as figure:
        figure.subplots_adjust(**MARGINS, bottom=0.13, wspace=0.14)
        shared: Axes | None = None
        for column, (part, title) in enumerate((("clean", "clean images"), ("attacked", attacked)), start=1):
            axes = shared = figure.add_subplot(1, 2, column, sharey=shared)
            confidence = samples[f"{part}_confidence"].to_numpy()
            right = samples[f"{part}_prediction"].to_numpy() == label
            _histogram(axes, confidence, right)
            auroc = results[part]["confidence"]["auroc"]
            legend = f"AUROC of telling them apart {number(auroc)}"
            axes.legend(loc="upper left", fontsize=9, frameon=False, title=legend, title_fontsize=10, alignment="left")
            axes.set_title(title, fontsize=12, color=INK, parse_math=False)
            axes.set(
                xlim=(0, 1), xlabel="confidence (largest softmax)", ylabel="images (log scale)" if column == 1 else ""
            )
    return path


def _histogram(axes: Axes, confidence: np.ndarray, right: np.ndarray) -> None:
    tidy(axes)
    axes.set_yscale("symlog", linthresh=1)
    finite = np.isfinite(confidence)
    sides = ((right, "right", CLEAN, "-"), (~right, "wrong", ATTACKED, "--"))
    for chosen, name, colour, line in sides:
        values = confidence[chosen & finite]
        drawn = f"{name} ({len(values)})"
        axes.hist(values, bins=list(_BINS), histtype="stepfilled", color=colour, alpha=0.25)
        axes.hist(values, bins=list(_BINS), histtype="step", color=colour, linestyle=line, linewidth=1.6, label=drawn)
    axes.margins(y=0.4)
