"""What all tests share: figures of runs that no test looks at are not painted."""

import io
from typing import Any

import pytest
from PIL import Image

PAINTED = ("report", "sinks")  # the folders whose tests look at figures


@pytest.fixture(autouse=True)
def blank_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are laid out and written, but as one pixel: painting them takes most of the time of a small run."""
    if request.path.parent.name in PAINTED:
        return

    def blank(_canvas: Any, buffer: io.BytesIO, **_options: Any) -> None:
        Image.new("L", (1, 1)).save(buffer, format="png")

    monkeypatch.setattr("robusteval.report.canvas.FigureCanvasAgg.print_png", blank)
