"""What lies behind a run may change under the same command, or answer otherwise each time: both are told."""

import json
from pathlib import Path

import numpy as np
import pytest

from robusteval.cli import run
from robusteval.evidence import files

NETWORK = """
import torch
from torch import nn

def build():
    torch.manual_seed({seed})
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = build()

    def forward(self, x):
        return self.inner(x) + 0.1 * torch.randn(len(x), 3)
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Return the overrides of a run on files of the user's own."""
    (tmp_path / "net.py").write_text(NETWORK.format(seed=0))
    pixels = np.random.default_rng(0).random((20, 1, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "images.npz", images=pixels, labels=np.arange(20) % 3)
    return [
        "model=python",
        f"model.entry={tmp_path / 'net.py'}:build",
        "dataset=arrays",
        f"dataset.path={tmp_path / 'images.npz'}",
        "attack=noise",
        "logger=none",
        f"runs.dir={tmp_path / 'runs'}",
    ]


def test_another_file_under_the_same_name_is_not_answered_from_the_old_run(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command) == 0
    assert run(command) == 0
    (tmp_path / "net.py").write_text(NETWORK.format(seed=1))
    assert run(command) == 2
    assert "model.entry" in capsys.readouterr().err
    assert run([*command, "runs.fresh=true"]) == 0
    np.savez(tmp_path / "images.npz", images=np.zeros((20, 1, 8, 8), np.float32), labels=np.arange(20) % 3)
    assert run(command) == 2
    assert "dataset.path" in capsys.readouterr().err


def test_a_complete_run_outlives_its_files(command: list[str], tmp_path: Path) -> None:
    assert run(command) == 0
    (tmp_path / "net.py").unlink()
    assert run(command) == 0


def test_digests_follow_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    options = {"model": {"entry": f"{tmp_path / 'a.py'}:f", "weights": None}, "dataset": {"path": "nowhere"}}
    before = files.digests(options)
    assert set(before) == {"model.entry"}
    assert files.changed(before, before) == []
    (tmp_path / "a.py").write_text("2")
    assert files.changed(before, files.digests(options)) == ["model.entry"]


def test_a_randomised_model_is_named(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command[1] = command[1].replace(":build", ":Noisy")
    assert run(command) == 0
    (results,) = (tmp_path / "runs").glob("*/results.json")
    verdicts = {check["id"]: check["verdict"] for check in json.loads(results.read_text())["checks"]}
    assert verdicts["deterministic"] == "warn", "the attack needs no gradients, so the mean prediction decides"
    assert "deterministic: the model is randomised" in capsys.readouterr().out


def test_a_finished_run_reaches_its_logger_later(command: list[str], tmp_path: Path) -> None:
    assert run(command) == 0
    assert run([*command[:-2], "logger.mode=offline", command[-1]]) == 0
    (results,) = (tmp_path / "runs").glob("*/results.json")
    (sink,) = json.loads(results.read_text())["sinks"]
    assert sink["name"] == "wandb"
    assert sink["errors"] == []
