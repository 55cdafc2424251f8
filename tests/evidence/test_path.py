"""engine.path changes no byte of a run's evidence, and is no part of its key."""

import json
from pathlib import Path

import pytest

from robusteval.cli import run

SMALL = ["model=mnist_cnn", "dataset.n=32", "engine.chunk=16", "engine.slots=7", "logger=none", "runtime.device=cpu"]
SEARCH = ["attack=pgd", "attack.steps=10", "attack.n_restarts=2", "threat.eps=[0.05,0.1]"]


def test_a_run_leaves_the_same_files(tmp_path: Path) -> None:
    folders = []
    for path in ("auto", "device"):
        assert run([*SMALL, *SEARCH, f"engine.path={path}", f"runs.dir={tmp_path / path}"]) == 0
        (found,) = (tmp_path / path).glob("*/results.json")
        folders.append(found.parent)
    assert folders[0].name == folders[1].name, "one key"
    host, device = (
        {
            str(file.relative_to(folder)): file.read_bytes()
            for kind in ("parquet", "safetensors")
            for file in folder.rglob(f"*.{kind}")
        }
        for folder in folders
    )
    assert "samples.parquet" in host
    assert any(name.endswith(".safetensors") for name in host)
    assert host == device
    results = [json.loads((folder / "results.json").read_text()) for folder in folders]
    assert results[0]["robust"] == results[1]["robust"]
    assert 0 < results[0]["robust"]["accuracy"]["value"] < results[0]["clean"]["accuracy"]["value"]


def test_a_path_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model=mnist_cnn", "engine.path=gpu", f"runs.dir={tmp_path}"]) == 2
    said = capsys.readouterr()
    assert "engine.path" in said.out + said.err
