"""One command line in this process, as a user would see it: exit code, standard output, standard error."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from robusteval import cli

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _nothing_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data, no weights, no account, and a current folder of its own."""
    for name in ("ROBUSTEVAL_DEBUG", "ROBUSTEVAL_RUNS", "IMAGENET_ROOT", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run one command line in this process."""

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        code = cli.run(arguments)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


@pytest.fixture
def interpreter() -> Callable[..., Answer]:
    """Run Python as a process of its own, on one thread, with this package in reach."""

    def run(*arguments: str, **environment: str) -> Answer:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            timeout=120,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def process(interpreter: Callable[..., Answer]) -> Callable[..., Answer]:
    """Run ``python -m robusteval`` as a process of its own."""

    def run(*arguments: str, **environment: str) -> Answer:
        return interpreter("-m", "robusteval", *arguments, **environment)

    return run


@pytest.fixture
def timed(process: Callable[..., Answer]) -> Callable[..., tuple[Answer, float]]:
    """Run ``python -m robusteval``, and tell the seconds that it took.

    On a machine with as much to do as cores a clock measures the others; then those count that this one computed.
    """

    def run(*arguments: str, **environment: str) -> tuple[Answer, float]:
        begun, worked = time.monotonic(), sum(os.times()[2:4])
        given = process(*arguments, **environment)
        took, worked = time.monotonic() - begun, sum(os.times()[2:4]) - worked
        return given, worked if os.getloadavg()[0] > 0.9 * (os.cpu_count() or 1) else took

    return run


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Configurations that passed every check: nothing is loaded or attacked, only noted here."""
    passed: list[object] = []

    def note(config: object, command: object, **_: object) -> str:
        passed.append(config)
        return "nowhere"

    monkeypatch.setattr("robusteval.engine.runner.evaluate", note)
    return passed
