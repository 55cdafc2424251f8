"""The gallery: clean image, attacked image and their difference side by side, with what the model said."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from robusteval.evidence import atomic
from robusteval.report.canvas import ATTACKED, CLEAN, INK, WIDTH, page

_FACTOR = "difference times"  # the key of a strip's text that says so
_PER_ROW = 2  # examples side by side
_MARGIN, _TITLE, _CAPTION, _FILL = 0.15, 0.5, 0.5, 0.97  # inches; the part of a tile that the image fills


@dataclass(frozen=True, kw_only=True)
class Example:
    """One image before and after the attack: ``clean`` and ``attacked`` are floats [C, H, W] in [0, 1], C is 1 or 3."""

    id: int
    label: int
    clean: np.ndarray
    attacked: np.ndarray
    clean_prediction: int
    attacked_prediction: int
    clean_confidence: float
    attacked_confidence: float
    class_names: tuple[str, ...] | None = None

    def name(self, index: int, letters: int) -> str:
        """Return the name of a class, shortened to so many letters; its number where there is no name."""
        if self.class_names is None:
            return str(index)
        name = self.class_names[index].replace("\n", " ")
        return name if len(name) <= letters else name[: letters - 1] + "…"


def amplification(examples: Sequence[Example]) -> float:
    """Return the factor by which differences are shown: the largest of 1, 2, 5, 10, 20, … that keeps all within ±1/2.

    One half where even the plain differences leave that range, for which every difference fits.
    """
    largest = max((float(np.abs(e.attacked - e.clean).max()) for e in examples), default=0.0)
    if largest == 0:
        return 1.0
    steps = [m * 10.0**p for p in range(4) for m in (1, 2, 5)]
    # The slack lets a radius such as 0.05, which float32 rounds up, keep its round factor.
    return max((f for f in steps if f * largest <= 0.5 + 1e-6), default=0.5)


def draw_gallery(path: Path, examples: Sequence[Example]) -> Path:
    """Draw the examples, two in a row; the difference is amplified by one stated factor, grey means none."""
    factor = amplification(examples)
    tile = (WIDTH - (_PER_ROW + 1) * _MARGIN) / (3 * _PER_ROW)
    height = _TITLE + ceil(len(examples) / _PER_ROW) * (tile + _CAPTION)
    with page(path, height=height) as figure:
        axes = figure.add_axes((0, 0, 1, 1))  # in inches; one for all, since an axes a tile takes ten times as long
        axes.set(xlim=(0, WIDTH), ylim=(0, height))
        axes.set_axis_off()
        title = f"clean image, attacked image, and (attacked − clean) × {factor:g} (grey: no difference)"
        axes.text(WIDTH / 2, height - _TITLE / 2, title, ha="center", va="center", fontsize=12, color=INK)
        for number, example in enumerate(examples):
            row, column = divmod(number, _PER_ROW)
            left = _MARGIN + column * (3 * tile + _MARGIN)
            top = height - _TITLE - row * (tile + _CAPTION) - _CAPTION
            for place, image in enumerate((example.clean, example.attacked, _difference(example, factor))):
                _show(axes, image, left + place * tile, top, _FILL * tile)
                _caption(axes, example, place, left + place * tile, top)
    return path


def _difference(example: Example, factor: float) -> np.ndarray:
    return np.clip(0.5 + factor * (example.attacked - example.clean), 0, 1)


def _show(axes: Axes, image: np.ndarray, left: float, top: float, side: float) -> None:
    """Draw an image into the square of ``side`` below and right of (left, top), its longer side filling it."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    height, width = (side * length / max(pixels.shape[:2]) for length in pixels.shape[:2])
    axes.imshow(
        np.clip(pixels, 0, 1),
        cmap="gray",
        vmin=0,
        vmax=1,
        interpolation="nearest" if max(pixels.shape[:2]) < 128 else "antialiased",
        extent=(left, left + width, top - height, top),
        aspect="auto",
    )


def _caption(axes: Axes, example: Example, place: int, left: float, top: float) -> None:
    if place == 0:
        _line(axes, left, top, 16, f"image {example.id}, label {example.name(example.label, 48)}", INK)
        _said(axes, left, top, example, example.clean_prediction, example.clean_confidence)
    if place == 1:
        _said(axes, left, top, example, example.attacked_prediction, example.attacked_confidence)


def _said(axes: Axes, left: float, top: float, example: Example, prediction: int, confidence: float) -> None:
    right = prediction == example.label
    sure = f"{100 * confidence:.0f} %" if np.isfinite(confidence) else "not finite"
    mark, colour = ("✓", CLEAN) if right else ("✗", ATTACKED)
    _line(axes, left, top, 3, f"{mark} {example.name(prediction, 12)}, {sure}", colour)


def _line(axes: Axes, left: float, top: float, above: float, text: str, colour: str) -> None:
    at = ((left, top), (0, above), "data", "offset points")  # points above the image's upper left corner
    axes.annotate(text, *at, fontsize=8.5, color=colour, va="bottom", parse_math=False)


def write_examples(folder: Path, examples: Sequence[Example]) -> list[Path]:
    """Write each example as a strip of clean, attacked and amplified difference, pixel by pixel: folder/ID.png."""
    factor = amplification(examples)
    paths = []
    for example in examples:
        strip = np.concatenate([example.clean, example.attacked, _difference(example, factor)], axis=2)
        pixels = np.round(255 * np.clip(strip, 0, 1)).astype(np.uint8)
        buffer = io.BytesIO()
        strip = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
        strip.save(buffer, format="png", pnginfo=_amplified(factor))
        paths.append(folder / f"{example.id:08}.png")
        atomic.write(paths[-1], buffer.getvalue())
    return paths


def factor_of(strip: Image.Image) -> float | None:
    """Return by how much the difference in a strip is amplified; None where the strip does not say."""
    said = strip.info.get(_FACTOR)
    return None if said is None else float(said)


def _amplified(factor: float) -> PngInfo:
    info = PngInfo()
    info.add_text(_FACTOR, f"{factor:g}")
    return info
