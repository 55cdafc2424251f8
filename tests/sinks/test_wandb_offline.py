"""Weights & Biases, offline: what its own reader finds in the run equals the run folder."""

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from robusteval.sinks.options import WandbLogger
from robusteval.sinks.push import push

pytest.importorskip("wandb")
Maker = Callable[..., Path]
OFFLINE = WandbLogger(mode="offline", group="sweep 1", tags=("first",))


def inspect(run: Path, *options: str) -> list[dict[str, Any]]:
    """Return the records of a W&B run as its official reader prints them."""
    (file,) = run.glob("run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", *options, "--json", str(file)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    decoder, text, records = json.JSONDecoder(), out.stdout[out.stdout.index("{") :], []
    while text:
        record, end = decoder.raw_decode(text)
        records.append(record)
        text = text[end:].lstrip()
    return records


def summary_of(run: Path) -> dict[str, Any]:
    (found,) = inspect(run, "--summary")
    assert (found["state"], found["exit_code"]) == ("finished", 0)
    return found["summary"]


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    return {
        name: leaf
        for key, part in value.items()
        for name, leaf in leaves(part, f"{path}/{key}" if path else key).items()
    }


def table(run: Path, value: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a logged table, after its file's hash is checked."""
    data = (run / "files" / value["path"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == value["sha256"]
    content = json.loads(data)
    assert len(content["data"]) == value["nrows"]
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


@pytest.fixture
def replayed(make_run: Maker) -> tuple[Path, Path]:
    folder = make_run()
    entry = push(OFFLINE, folder)
    assert (entry["name"], entry["mode"], entry["errors"]) == ("wandb", "offline", [])
    return folder, folder / entry["where"]


def test_the_run_holds_what_the_folder_holds(replayed: tuple[Path, Path]) -> None:
    folder, run = replayed
    results = json.loads((folder / "results.json").read_text())
    summary = summary_of(run)
    sent = {key: value for key, value in results.items() if key not in ("provenance", "sinks")}
    values, lists = {}, {}
    for path, leaf in leaves(sent).items():
        (lists if isinstance(leaf, list) else values)[path] = leaf

    # every number and word, to the last bit
    assert {path: summary[path] for path, value in values.items() if value is not None} == {
        path: value for path, value in values.items() if value is not None
    }
    assert sum(isinstance(value, int | float) for value in values.values()) == 29
    # every list, row by row
    assert set(lists) == {
        "clean/calibration/reliability",
        "clean/per_class",
        "attacked/calibration/reliability",
        "attacked/per_class",
        "robust/by_stage",
        "robust/curve",
        "checks",
    }
    for path, rows in lists.items():
        assert table(run, summary[path]) == rows
    # every sample, without the columns of logits
    rows = [
        {k: v for k, v in row.items() if k != "clean_top_logits"}
        for row in pq.read_table(folder / "samples.parquet").to_pylist()
    ]
    for row in rows:
        row.update({k: None for k, v in row.items() if isinstance(v, float) and math.isnan(v)})
    assert table(run, summary["samples"]) == rows
    assert rows[5]["clean_confidence"] is None


def test_pictures_are_those_of_the_folder(replayed: tuple[Path, Path]) -> None:
    folder, run = replayed
    summary = summary_of(run)
    figure = summary["figures/reliability"]
    assert (run / "files" / figure["path"]).read_bytes() == (folder / "figures" / "reliability.png").read_bytes()
    assert hashlib.sha256((run / "files" / figure["path"]).read_bytes()).hexdigest() == figure["sha256"]
    shown = [(run / "files" / name).read_bytes() for name in summary["examples"]["filenames"]]
    assert shown == [path.read_bytes() for path in sorted((folder / "figures" / "examples").glob("*.png"))]
    rows = {row["id"]: row for row in pq.read_table(folder / "samples.parquet").to_pylist()}
    confidence = f"clean 1 ({rows[7]['clean_confidence']:.3f}), attacked 1 ({rows[7]['attacked_confidence']:.3f})"
    assert summary["examples"]["captions"][1] == f"image 7, label 1: {confidence}"


def test_the_artifact_holds_results_and_samples(replayed: tuple[Path, Path]) -> None:
    folder, run = replayed
    (artifact,) = [
        r["artifact"] for r in inspect(run) if r["type"] == "artifact" and r["artifact"]["type"] == "evaluation"
    ]
    members = {entry["path"]: Path(entry["local_path"]) for entry in artifact["manifest"]["contents"]}
    assert set(members) == {"results.json", "samples.parquet"}
    assert members["samples.parquet"].read_bytes() == (folder / "samples.parquet").read_bytes()
    stored, written = (json.loads(path.read_text()) for path in (members["results.json"], folder / "results.json"))
    assert {**stored, "sinks": None} == {**written, "sinks": None}
    assert all(path.is_relative_to(folder / "wandb") for path in members.values())


def test_run_config_and_labels(replayed: tuple[Path, Path]) -> None:
    folder, run = replayed
    (begun,) = [record["run"] for record in inspect(run) if record["type"] == "run"]
    config = {key: value for key, value in begun["config"]["update"].items() if key != "_wandb"}
    provenance = {"robusteval": "0.1.0", "command": "robusteval attack=pgd"}
    assert config == {
        "model": {"name": "mnist_cnn_at"},
        "logger": {"name": "none"},
        "seed": 3,
        "provenance": provenance,
    }
    assert (begun["display_name"], begun["project"]) == (folder.name, "robusteval")
    assert (begun["run_group"], begun["job_type"]) == ("sweep 1", "evaluation")
    assert begun["tags"] == ["first", "pgd", "mnist_5k", "linf"]


def test_results_json_notes_where_the_run_went(replayed: tuple[Path, Path]) -> None:
    folder, run = replayed
    (entry,) = json.loads((folder / "results.json").read_text())["sinks"]
    assert entry == {"name": "wandb", "mode": "offline", "where": run.relative_to(folder).as_posix(), "errors": []}


def test_two_runs_in_one_process_stay_two(make_run: Maker) -> None:
    folders = [make_run("one"), make_run("three")]
    where = [folder / push(OFFLINE, folder)["where"] for folder in folders]
    found = [summary_of(run)["robust/accuracy/correct"] for run in where]
    assert found == [3, 5]
    assert where[0].name[-16:] != where[1].name[-16:]


def test_sent_again_it_replaces_itself_under_the_same_id(make_run: Maker) -> None:
    folder = make_run()
    first = push(OFFLINE, folder)["where"]
    second = push(OFFLINE, folder)["where"]
    assert first[-16:] == second[-16:]
    assert [path.name for path in (folder / "wandb").glob("offline-run-*")] == [Path(second).name]
    assert len(json.loads((folder / "results.json").read_text())["sinks"]) == 1


def test_all_files_stay_in_the_folder_and_no_secret_is_written(
    make_run: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = "5ec7e7" * 7
    monkeypatch.setenv("WANDB_API_KEY", secret)
    monkeypatch.chdir(tmp_path)
    folder = make_run()
    home = Path(os.environ["HOME"])
    before, environment = set(home.rglob("*")), dict(os.environ)
    push(OFFLINE, folder)
    assert {path for path in home.rglob("*") if path.is_file()} - before == set()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()] == []
    changed = {name for name in os.environ.keys() | environment if os.environ.get(name) != environment.get(name)}
    assert changed <= {"WANDB_SERVICE"}


def test_rows_and_images_are_capped_and_spread(make_run: Maker) -> None:
    folder = make_run()
    entry = push(WandbLogger(mode="offline", rows=4, images=1), folder)
    run = folder / entry["where"]
    summary = summary_of(run)
    assert [row["id"] for row in table(run, summary["samples"])] == [0, 13 * 7, 26 * 7, 39 * 7]
    assert len(summary["examples"]["filenames"]) == 1
    run = folder / push(WandbLogger(mode="offline", rows=0, images=0), folder)["where"]
    assert {"samples", "examples"} & summary_of(run).keys() == set()
