"""A killed evaluation goes on where it stopped, and ends in the same bytes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DRIVER = Path(__file__).parent / "kill_driver.py"
RUN = ["model=mnist_cnn_at", "dataset.n=96", "engine.chunk=32", "attack.steps=5", "logger=none"]


def kill(folder: Path, kills: int, overrides: list[str], seed: int = 1) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(folder), str(kills), str(seed), *overrides],
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(600)
def test_twenty_kills(tmp_path: Path) -> None:
    told = kill(tmp_path, 20, [*RUN, "checks=off", "dataset.n=48", "engine.chunk=16"])
    assert told["kills"] >= 20
    assert told["equal"] == told["rounds"]
    assert told["lost"] == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_among_several_radii(tmp_path: Path) -> None:
    told = kill(tmp_path, 3, [*RUN, "threat.eps=[0.1,0.25,0.35]"])
    assert told["kills"] >= 3
    assert told["equal"] == told["rounds"]


@pytest.mark.slow
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("seed", [1, 2])  # a hundred, half of them on each core
def test_fifty_kills_over_all_stages_of_autoattack(tmp_path: Path, seed: int) -> None:
    """Resumed runs are killed too. What a kill has left stays, so it costs no more than the chunk in the making."""
    autoattack = [
        "attack=autoattack",
        "checks=off",
        "attack.steps=2",
        "attack.queries=20",
        "dataset.n=32",
        "engine.chunk=16",
    ]
    told = kill(tmp_path, 50, ["model=mnist_cnn_at", "logger=none", *autoattack], seed)
    assert told["kills"] >= 50
    assert told["equal"] == told["rounds"]
    assert told["lost"] == 0
    assert told["stages"].keys() >= {"clean", "apgd-ce", "apgd-t", "fab-t", "square"}, told["stages"]


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_kills_of_solarize(tmp_path: Path) -> None:
    told = kill(tmp_path, 8, [*RUN[:3], "logger=none", "attack=solarize"])
    assert told["equal"] == told["rounds"]
    assert told["lost"] == 0


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_three_kills_of_a_process_with_workers(tmp_path: Path) -> None:
    """The next process begins at once, beside workers that have not yet noticed."""
    told = kill(tmp_path, 3, [*RUN, "runtime.workers=2"])
    assert told["kills"] >= 3
    assert told["equal"] == told["rounds"]
