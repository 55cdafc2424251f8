"""Figures: they are written whole, say what they show, and show what is in the results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from robusteval.metrics import survey as surveys
from robusteval.metrics.accuracy import rate
from robusteval.report import canvas
from robusteval.report.confidence import draw_confidence
from robusteval.report.curves import draw_survey
from robusteval.report.figures import draw
from robusteval.report.gallery import Example, amplification, draw_gallery, write_examples
from robusteval.report.reliability import draw_reliability

Maker = Callable[..., dict[str, Any]]


def example(number: int = 0, *, distance: float = 0.1, channels: int = 1, size: int = 28, **changes: Any) -> Example:
    clean = np.full((channels, size, size), 0.5, dtype=np.float32)
    clean[:, :4] = 0.25
    attacked = clean.copy()
    attacked[:, 8] += distance
    fields = {
        "id": number,
        "label": 1,
        "clean": clean,
        "attacked": attacked,
        "clean_prediction": 1,
        "attacked_prediction": 2,
        "clean_confidence": 0.9,
        "attacked_confidence": 0.4,
    }
    return Example(**{**fields, **changes})


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Keep the figures that are drawn, numbered in their order."""
    drawn: dict[str, Figure] = {}
    original = canvas.FigureCanvasAgg.print_png

    def keep(self: canvas.FigureCanvasAgg, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        drawn[str(len(drawn))] = self.figure

    monkeypatch.setattr(canvas.FigureCanvasAgg, "print_png", keep)
    return drawn


def _words(figure: Figure) -> str:
    axes_words = [axes.get_title() for axes in figure.axes]
    texts = [text.get_text() for axes in figure.axes for text in axes.texts] + [
        text.get_text() for text in figure.texts
    ]
    legends = [text.get_text() for axes in figure.axes if (legend := axes.get_legend()) for text in legend.get_texts()]
    return "\n".join([*axes_words, *texts, *legends])


@pytest.mark.parametrize(
    ("largest", "factor"),
    [(0.0, 1), (0.3, 1), (0.25, 2), (0.05, 10), (8 / 255, 10), (1 / 255, 100), (0.5, 1), (0.51, 0.5), (1.0, 0.5)],
)
def test_differences_are_amplified_by_a_round_factor_that_keeps_them_visible(largest: float, factor: float) -> None:
    assert amplification([example(distance=0), example(distance=float(np.float32(largest)))]) == factor


def test_all_figures_are_written_whole_and_the_same_twice(
    samples: pa.Table, make_results: Maker, tmp_path: Path
) -> None:
    paths = draw(tmp_path, make_results(), samples, [example(7), example(13)], None)
    names = [path.relative_to(tmp_path / "figures").as_posix() for path in paths]
    assert names == [
        "reliability.png",
        "confidence.png",
        "gallery.png",
        "examples/00000007.png",
        "examples/00000013.png",
    ]
    assert sorted(path for path in (tmp_path / "figures").rglob("*") if path.is_file()) == sorted(paths)
    first = [path.read_bytes() for path in paths]
    for path in paths[:3]:
        assert Image.open(path).size[0] == 1200
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.dpi": 10}):
        again = draw(tmp_path, make_results(), samples, [example(7), example(13)], None)
    assert [path.read_bytes() for path in again] == first


def test_no_examples_no_gallery(samples: pa.Table, make_results: Maker, tmp_path: Path) -> None:
    assert [path.name for path in draw(tmp_path, make_results(), samples, [], None)] == [
        "reliability.png",
        "confidence.png",
    ]


def test_reliability_shows_the_bins_their_counts_and_the_ece(
    make_results: Maker, tmp_path: Path, pages: dict[str, Figure]
) -> None:
    results = make_results()
    draw_reliability(tmp_path / "reliability.png", results)
    upper_clean, lower_clean, upper_attacked, lower_attacked = pages["0"].axes
    for part, upper, lower in (("clean", upper_clean, lower_clean), ("attacked", upper_attacked, lower_attacked)):
        calibration = results[part]["calibration"]
        bins = calibration["reliability"]
        assert [bar.get_height() for bar in upper.patches if isinstance(bar, Rectangle)] == [
            row["accuracy"] for row in bins
        ]
        assert [text.get_text() for text in lower.texts] == [str(row["n"]) for row in bins]
        assert f"ECE {calibration['ece']:.3f}, n = 240" in upper.get_title()
        assert upper.containers[1].has_yerr  # pyright: ignore[reportAttributeAccessIssue]
    assert "first success" in upper_attacked.get_title()
    assert lower_clean.get_ylim() == lower_attacked.get_ylim()


def test_confidence_counts_right_and_wrong(
    samples: pa.Table, make_results: Maker, tmp_path: Path, pages: dict[str, Figure]
) -> None:
    results = make_results()
    draw_confidence(tmp_path / "confidence.png", results, samples)
    words = _words(pages["0"])
    for part in ("clean", "attacked"):
        right = results[part]["accuracy"]["correct"]
        assert f"right ({right})" in words
        assert f"wrong ({240 - right})" in words


@pytest.mark.parametrize("goal", ["top1", "top5"])
def test_curve_shows_every_point_its_interval_and_the_radius_that_is_quoted(
    samples: pa.Table, make_results: Maker, tmp_path: Path, pages: dict[str, Figure], goal: str
) -> None:
    results = make_results(threat={"norm": "l2", "eps": [0.1, 0.2, 0.4], "goal": goal, "region": None})
    points = [{"eps": eps, **rate(np.arange(240) < k)} for eps, k in ((0.1, 200), (0.2, 120), (0.4, 30))]
    results["robust"]["curve"] = points
    assert "curve.png" in [path.name for path in draw(tmp_path, results, samples, [], None)]
    (axes,) = pages["2"].axes
    line, quoted, level = axes.lines
    np.testing.assert_allclose(np.asarray(line.get_xydata()), [(point["eps"], point["value"]) for point in points])
    np.testing.assert_allclose(np.asarray(quoted.get_xydata()), [(0.4, 30 / 240)])
    clean = results["clean"]["accuracy" if goal == "top1" else "top5"]["value"]
    assert list(np.asarray(level.get_ydata())) == [clean, clean]
    corners = axes.collections[0].get_paths()[0].vertices
    for point in points:
        for end in ("low", "high"):
            assert np.isclose(corners, (point["eps"], point[end])).all(1).any()
    words = _words(pages["2"])
    assert "robust accuracy under pgd" in words
    assert "at eps 0.4: 12.5 %" in words
    assert axes.get_xlabel() == "eps (l2)"


def test_gallery_states_factor_labels_and_predictions(tmp_path: Path, pages: dict[str, Figure]) -> None:
    names = ("cat", "a $dog$ of a very long name^2", "bird")
    shown = [
        example(7, distance=8 / 255, class_names=names),
        example(9, distance=0.01, attacked_confidence=float("nan")),
    ]
    draw_gallery(tmp_path / "gallery.png", shown)
    words = _words(pages["0"])
    assert "(attacked − clean) × 10" in words
    assert "image 7, label a $dog$ of a very long name^2" in words
    assert "✓ a $dog$ of …, 90 %" in words
    assert "✗ bird, 40 %" in words
    assert "✗ 2, not finite" in words


def test_an_example_is_stored_pixel_by_pixel(tmp_path: Path) -> None:
    (path,) = write_examples(tmp_path, [example(3, distance=0.05, channels=3, size=32)])
    strip = np.asarray(Image.open(path))
    assert strip.shape == (32, 96, 3)
    assert (strip[8, :32] == round(0.5 * 255)).all()
    assert (strip[8, 32:64] == round(0.55 * 255)).all()
    assert (strip[8, 64:] == 255).all()  # half + 10 * 0.05
    assert (strip[9, 64:] == 128).all()  # no difference


def test_survey_marks_the_worst_threshold_and_ten_tries(
    samples: pa.Table, make_results: Maker, tmp_path: Path, pages: dict[str, Figure]
) -> None:
    correct = samples["clean_correct"].to_numpy()
    thresholds = surveys.thresholds()
    flags = correct[:, None] & (np.random.default_rng(0).random((240, 1)) < 0.2 + np.abs(thresholds - 0.1))
    found = surveys.survey(flags, thresholds, correct, exhaustive=True)
    draw_survey(tmp_path / "survey.png", {**make_results(), "attack": {"name": "solarize"}}, found)
    universal, random = pages["0"].axes
    assert [np.asarray(line.get_xdata())[0] for line in universal.lines if line.get_marker() == "o"] == [
        found["worst"]["parameter"]
    ]
    assert len(np.asarray(universal.lines[0].get_xdata())) == 257
    words = _words(pages["0"])
    assert f"10 tries, as published: {100 * found['random'][9]['value']:.1f} %" in words
    assert f"worst for each image: {100 * found['per_image']['value']:.1f} %" in words
    assert list(np.asarray(random.lines[0].get_xdata())) == list(range(1, 51))

    draw_survey(tmp_path / "survey.png", make_results(), surveys.survey(flags, thresholds, correct, exhaustive=False))
    assert len(pages["1"].axes) == 1
