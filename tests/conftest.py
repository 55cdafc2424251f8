"""What every test has in common: one thread, figures that no test looks at are not drawn, and who runs it."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from xdist.scheduler import LoadScopeScheduling

# The suite runs in several processes at once: one thread each, or they wait for each other. Bits do not depend on it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PAINTED = ("report", "sinks")  # the folders whose tests look at figures
LAID_OUT = ("test_readme", "test_disks", "test_forensics", "test_merge", "test_radii")  # that they are there is enough
EVERYWHERE = ("draw_reliability", "draw_confidence")  # of every run, and laying them out takes longer than a small one


@pytest.fixture(autouse=True, scope="module")
def fewer_figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Do not draw figures that nobody looks at, or write one pixel: they take most of the time of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.stem in LAID_OUT:
            patch.setattr("robusteval.report.canvas.FigureCanvasAgg.print_png", blank)
            for name in EVERYWHERE:
                patch.setattr(f"robusteval.report.figures.{name}", pixel)
        elif request.path.parent.name not in PAINTED:
            patch.setattr("robusteval.engine.finish.draw", nothing)
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Let a test draw the same numbers in whatever order and process it runs."""
    import torch  # not above, where it would not see the variable

    torch.manual_seed(0)


def nothing(folder: Path, *_: Any, **__: Any) -> list[Path]:
    (folder / "figures").mkdir(exist_ok=True)  # without it a run is not complete
    return []


def blank(_canvas: Any, buffer: io.BytesIO, **_options: Any) -> None:
    Image.new("L", (1, 1)).save(buffer, format="png")


def pixel(path: Path, *_: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (1, 1)).save(path)
    return path


CONTRACT = "tests/contract/"  # thousands of short tests
ALONE = (CONTRACT, "tests/evidence/test_kill.py")  # share nothing


class ByFile(LoadScopeScheduling):
    """Gives a file to one process, where the runs that its tests share are made once.

    The groups of pytest-xdist 3.8 would do, but pytest 9.2 no longer looks where it writes their names.
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(ALONE) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the short tests at the end, so that no process waits long for the others."""
    items.sort(key=lambda item: item.nodeid.startswith(CONTRACT))
