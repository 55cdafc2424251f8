"""A small finished run, made once and copied for every test that damages one."""

import shutil
from pathlib import Path

import pytest

from robusteval.cli import run

SMALL = ["model=mnist_cnn", "dataset.n=96", "engine.chunk=32", "attack.steps=3", "threat.eps=0.1", "logger=none"]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a complete PGD run: three chunks, some images broken and some not."""
    runs = tmp_path_factory.mktemp("finished")
    assert run([*SMALL, f"runs.dir={runs}"]) == 0
    (folder,) = runs.glob("*/run.json")
    return folder.parent


@pytest.fixture
def damaged(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the run to damage, in a folder of runs of its own."""
    return Path(shutil.copytree(finished, tmp_path / "runs" / finished.name))


@pytest.fixture(scope="session")
def command() -> list[str]:
    """Return the overrides that made the run."""
    return SMALL
