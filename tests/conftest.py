"""What every test has in common: one thread, and figures that no test looks at are not painted."""

import io
import os
from typing import Any

import pytest
from PIL import Image

# The suite runs in several processes at once: one thread each, or they wait for each other. Bits do not depend on it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PAINTED = ("report", "sinks")  # the folders whose tests look at figures


@pytest.fixture(autouse=True)
def blank_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are laid out and written, but as one pixel: painting them takes most of the time of a small run."""
    if request.path.parent.name in PAINTED:
        return

    def blank(_canvas: Any, buffer: io.BytesIO, **_options: Any) -> None:
        Image.new("L", (1, 1)).save(buffer, format="png")

    monkeypatch.setattr("robusteval.report.canvas.FigureCanvasAgg.print_png", blank)
