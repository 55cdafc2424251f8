"""All figures of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from robusteval.metrics.survey import Fooling
from robusteval.report.confidence import draw_confidence
from robusteval.report.curves import draw_survey
from robusteval.report.gallery import Example, draw_gallery, write_examples
from robusteval.report.landscape import draw_landscape
from robusteval.report.perturbation import Maps, draw_perturbation
from robusteval.report.radii import draw_curve
from robusteval.report.reliability import draw_reliability


def draw(
    folder: Path,
    results: dict[str, Any],
    samples: pa.Table,
    examples: Sequence[Example],
    survey: dict[str, Any] | None,
    *,
    fooling: Fooling | None = None,
    maps: Maps | None = None,
    class_names: list[str] | None = None,
) -> list[Path]:
    """Write the figures of a run into ``folder/figures`` and return their paths.

    ``fooling`` is what a survey says class by class, ``maps`` the mean maps of the perturbations.
    """
    figures = folder / "figures"
    drawn = [
        draw_reliability(figures / "reliability.png", results),
        draw_confidence(figures / "confidence.png", results, samples),
    ]
    if examples:
        drawn.append(draw_gallery(figures / "gallery.png", examples))
        drawn.extend(write_examples(figures / "examples", examples))
    if "curve" in results["robust"]:
        drawn.append(draw_curve(figures / "curve.png", results))
    if survey is not None:
        drawn.append(draw_survey(figures / "survey.png", results, survey))
    if maps and results["perturbation"]["n"]:
        drawn.append(draw_perturbation(figures / "perturbation.png", results, maps))
    if survey is not None and fooling is not None:
        drawn.append(draw_landscape(figures / "landscape.png", results, survey, fooling, class_names))
    return drawn
