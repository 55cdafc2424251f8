"""A page to draw on: matplotlib without its global state, colours, and files that are complete or absent.

Figures are drawn with matplotlib's own defaults, whatever the user's matplotlibrc says, so that the same run gives the
same picture.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from robusteval.evidence import atomic

WIDTH, DPI = 10.0, 120  # inches and dots per inch: 1200 px
MARGINS = {"left": 0.08, "right": 0.985, "top": 0.93}  # of a figure of two columns, in parts of its size

# Okabe & Ito's colours, which people with any colour vision tell apart (https://jfly.uni-koeln.de/color/).
CLEAN, ATTACKED, WORST, INK, FAINT = "#0072B2", "#D55E00", "#CC79A7", "#222222", "#767676"


@contextmanager
def page(path: Path, height: float) -> Iterator[Figure]:
    """Yield an empty figure of 1200 px by ``height`` inches, and write it to ``path`` (PNG) when the block ends."""
    with matplotlib.style.context("default", after_reset=True):
        figure = Figure(figsize=(WIDTH, height), dpi=DPI)
        canvas = FigureCanvasAgg(figure)
        yield figure
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            # Class names may be in a script that the font lacks; a box in the caption is no reason for noise.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            canvas.print_png(buffer, metadata={"Software": None})
        atomic.write(path, buffer.getvalue())


def tidy(axes: Axes) -> None:
    """Leave only what is read: no box, a faint grid below the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
