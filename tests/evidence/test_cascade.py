"""A cascade on disk: whatever of its stages a kill left, the same command ends in the same bytes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from robusteval.cli import run

STAGES = ("clean", "apgd-ce", "apgd-t", "fab-t", "square")
COMMAND = [
    "model=mnist_cnn_at", "dataset.n=48", "engine.chunk=24", "attack=autoattack", "attack.steps=5", "attack.queries=20",
    "threat.eps=0.32", "logger=none",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("cascade")
    assert run([*COMMAND, f"runs.dir={runs}"]) == 0
    return next(runs.glob("*/run.json")).parent


def stable(folder: Path) -> dict[str, Any]:
    results = json.loads((folder / "results.json").read_text())
    for key in ("provenance", "sinks"):
        del results[key]
    results["cost"] = {key: results["cost"][key] for key in ("forward_passes", "backward_passes")}
    return results


def test_stages_add_up(whole: Path) -> None:
    results = stable(whole)
    rows = results["robust"]["by_stage"]
    assert tuple(row["stage"] for row in rows) == STAGES[1:]
    entered = results["clean"]["accuracy"]["correct"]
    for row in rows:
        assert row["entered"] == entered
        entered -= row["broken"]
    assert results["robust"]["accuracy"]["correct"] == entered
    assert rows[0]["broken"] > 0
    verdicts = {check["id"]: check["verdict"] for check in results["checks"]}
    assert verdicts["protocol"] == "warn", "5 steps are not the published budget"
    assert verdicts["square"] in ("pass", "warn")


@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_in_any_stage_costs_nothing(stage: str, whole: Path, tmp_path: Path) -> None:
    """A unit is there whole or not at all, so this is what a kill within the stage of the second chunk leaves."""
    folder = Path(shutil.copytree(whole, tmp_path / "runs" / whole.name))
    for name in STAGES[STAGES.index(stage) :]:
        for path in [*folder.glob(f"shards/{name}/00001-*"), *folder.glob(f"adversarials/{name}/00001-*")]:
            path.unlink()
    (folder / "samples.parquet").unlink()
    (folder / "results.json").unlink()
    assert run([*COMMAND, f"runs.dir={tmp_path / 'runs'}"]) == 0
    assert (folder / "samples.parquet").read_bytes() == (whole / "samples.parquet").read_bytes()
    assert stable(folder) == stable(whole)
    kept = sorted(path.name for path in whole.glob("adversarials/**/*.safetensors"))
    assert sorted(path.name for path in folder.glob("adversarials/**/*.safetensors")) == kept


def test_its_adversarials_hold(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(whole)]) == 0
    assert "(100%)" in capsys.readouterr().out


@pytest.mark.parametrize(("version", "classes", "code"), [("standard", 3, 2), ("rand", 3, 0), ("rand", 2, 2)])
def test_too_few_classes_are_refused_in_a_sentence(
    version: str, classes: int, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\ndef build():\n    torch.manual_seed(0)\n"
        f"    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 5 * 7, {classes}))\n"
    )
    pixels = np.random.default_rng(0).random((8, 3, 5, 7), dtype=np.float32)
    np.savez(tmp_path / "images.npz", images=pixels, labels=np.arange(8) % classes)
    assert (
        run([
            "model=python", f"model.entry={tmp_path / 'net.py'}:build", "dataset=arrays",
            f"dataset.path={tmp_path / 'images.npz'}", "attack=autoattack", f"attack.version={version}",
            "attack.steps=2", "logger=none", f"runs.dir={tmp_path / 'runs'}",
        ])
        == code
    )  # fmt: skip
    if code:
        assert f"has {classes}" in capsys.readouterr().err
