"""Runs that stop before all images are done: soon, with what was not run said, and in the same bytes however made."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from robusteval.cli import run
from robusteval.evidence import stopping
from robusteval.evidence.folder import RunFolder
from robusteval.metrics.sequence import bounds

COMMAND = ["model=mnist_cnn", "attack=pgd", "attack.steps=3", "logger=none"]


def folder_of(runs: Path) -> Path:
    (found,) = runs.glob("*/run.json")
    return found.parent


def same_bytes(one: Path, other: Path) -> bool:
    skipped = ("cost", "provenance", "sinks")
    first, second = (json.loads((path / "results.json").read_text()) for path in (one, other))
    for results in (first, second):
        for name in skipped:
            results.pop(name)
    return (one / "samples.parquet").read_bytes() == (other / "samples.parquet").read_bytes() and first == second


WIDTH = ["threat.eps=0.1", "dataset.n=320", "engine.chunk=32", "stop.width=0.25"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that stopped by its width after some of its ten chunks."""
    runs = tmp_path_factory.mktemp("stopped")
    assert run([*COMMAND, *WIDTH, f"runs.dir={runs}"]) == 0
    return folder_of(runs)


def test_a_question_that_is_easy_is_answered_by_few_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*COMMAND, "stop.below=0.5", f"runs.dir={tmp_path}"]) == 0
    results = json.loads((folder_of(tmp_path) / "results.json").read_text())
    robust, ended = results["robust"]["accuracy"], results["stopped"]
    assert ended["planned"] == 1000
    assert robust["n"] == ended["evaluated"] <= 100
    assert robust["high"] < 0.5
    assert ended["reached"] == "below"
    out = " ".join(capsys.readouterr().out.split())
    assert f"{1000 - robust['n']} images were not run" in out
    assert run(["verify", str(folder_of(tmp_path))]) == 0


def test_the_images_are_in_a_random_order_that_the_seed_decides(stopped: Path, tmp_path: Path) -> None:
    ids = pq.read_table(stopped / "samples.parquet")["id"].to_numpy()
    assert len(np.unique(ids)) == len(ids)
    assert (np.diff(ids) < 0).mean() > 0.3
    labels = pq.read_table(stopped / "samples.parquet")["label"].to_numpy()
    assert len(np.unique(labels[:32])) > 5, "the dataset is sorted by class"
    assert run([*COMMAND, *WIDTH, "seed=1", f"runs.dir={tmp_path}"]) == 0
    others = pq.read_table(folder_of(tmp_path) / "samples.parquet")["id"].to_numpy()
    assert ids[:32].tolist() != others[:32].tolist()


def test_it_stops_at_the_first_chunk_that_answers(stopped: Path) -> None:
    results = json.loads((stopped / "results.json").read_text())
    table = pq.read_table(stopped / "samples.parquet")
    robust = table["robust"].to_numpy(zero_copy_only=False)
    widths = [np.diff(bounds(int(robust[:n].sum()), n, 320))[0] for n in range(32, len(robust) + 1, 32)]
    assert widths[-1] <= 0.25 < min(widths[:-1])
    assert 32 < len(robust) < 320
    accuracy = results["robust"]["accuracy"]
    assert (accuracy["low"], accuracy["high"]) == bounds(int(robust.sum()), len(robust), 320)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_run_that_lost_a_chunk_ends_in_the_same_bytes(stopped: Path, tmp_path: Path, lost: int) -> None:
    copy = Path(shutil.copytree(stopped, tmp_path / "runs" / stopped.name))
    for name in ("results.json", "samples.parquet"):
        (copy / name).unlink()
    for path in copy.glob(f"shards/*/{lost:05d}-*"):
        path.unlink()
    assert run([*COMMAND, *WIDTH, f"runs.dir={tmp_path / 'runs'}"]) == 0
    assert same_bytes(stopped, copy)


@pytest.mark.slow
def test_chunks_beyond_the_end_change_nothing(stopped: Path, tmp_path: Path) -> None:
    """As two workers leave them: computed before it was known that they were not needed."""
    longer = tmp_path / "longer"
    assert run([*COMMAND, *WIDTH, "runtime.workers=2", f"runs.dir={longer}"]) == 0
    other = folder_of(longer)
    assert same_bytes(stopped, other)
    assert run(["verify", str(other)]) == 0


def test_what_is_missing_is_not_decided(stopped: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(stopped, tmp_path / stopped.name))
    chunks = stopping.Decision(RunFolder(copy)).counted()
    assert chunks is not None
    assert 1 < chunks < 10
    next(iter(copy.glob("shards/*-pgd/00001-*"))).unlink()
    assert stopping.Decision(RunFolder(copy)).counted() is None
    assert stopping.counted(RunFolder(copy)) == 10


def test_a_rule_that_never_holds_runs_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["dataset.n=48", "engine.chunk=16", "threat.eps=0.01", "stop.below=0.1"]
    assert run([*COMMAND, *small, f"runs.dir={tmp_path}"]) == 0
    results = json.loads((folder_of(tmp_path) / "results.json").read_text())
    assert results["stopped"]["reached"] is None
    accuracy = results["robust"]["accuracy"]
    assert accuracy["n"] == 48
    assert accuracy["low"] == accuracy["value"] == accuracy["high"], "of all images it is known"
    assert "never certain" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["stop.below=0.4", "runtime.shards=2", "runtime.shard=1/2"], "shards cannot know"),
        (["stop.width=0.1", "attack=solarize", "attack.mode=universal"], "worst over all images"),
        (["stop.width=0"], "stop.width=0"),
        (["stop.below=1.5"], "stop.below=1.5"),
        (["stop.abov=0.5"], "stop.above"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_in_a_sentence(
    overrides: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["model=mnist_cnn", "logger=none", f"runs.dir={tmp_path}", *overrides]
    assert run(command) == 2
    assert words in capsys.readouterr().err
    assert not any(tmp_path.glob("*/run.json"))


def test_stopped_runs_do_not_merge(stopped: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = ["model=mnist_cnn", "attack=fgsm", "logger=none", *WIDTH, f"runs.dir={tmp_path}"]
    assert run(other) == 0
    assert run(["merge", str(stopped), str(folder_of(tmp_path))]) == 2
    assert "stopping rule" in capsys.readouterr().err
