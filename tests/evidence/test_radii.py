"""A list of radii from the command line to its files: each radius holds what runs of its own find up to it."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robusteval.cli import run
from robusteval.evidence import shards
from robusteval.evidence.folder import RunFolder
from robusteval.evidence.repredict import repredict

RADII = (0.02, 0.2, 0.4)
LIST = "threat.eps=[0.4,0.02,0.2,0]"
ATTACK = ["attack=pgd", "attack.steps=1", "engine.chunk=32", "logger=none"]

# Long steps jump over the class that short ones meet: a larger ball does not break all that a smaller one does.
STRIPES = """
import torch
from torch import nn

class Stripes(nn.Module):
    def forward(self, images):
        wave = (40 * images.flatten(1).mean(1)).sin()
        return torch.stack([wave, -wave], 1)

def build():
    return Stripes()
"""


def write_stripes(folder: Path) -> None:
    (folder / "stripes.py").write_text(STRIPES)
    images = np.random.default_rng(0).random((96, 1, 4, 4), dtype=np.float32)
    labels = (np.sin(40 * images.mean((1, 2, 3))) < 0).astype(int)
    labels[::9] = 1 - labels[::9]  # some are wrong without an attack
    np.savez(folder / "images.npz", images=images, labels=labels)


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return what evaluates the striped network in a folder of runs and returns the run."""
    here = tmp_path_factory.mktemp("stripes")
    write_stripes(here)
    model = ["model=python", f"model.entry={here / 'stripes.py'}:build", "model.classes=2", "model.name=stripes"]
    return functools.partial(made, *model, "dataset=arrays", f"dataset.path={here / 'images.npz'}", *ATTACK)


def made(*overrides: str, runs: Path) -> Path:
    assert run([*overrides, f"runs.dir={runs}"]) == 0
    (file,) = runs.glob("*/results.json")
    return file.parent


def samples(folder: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(folder / "samples.parquet")
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def broken(table: dict[str, np.ndarray]) -> set[int]:
    return set(table["id"][table["clean_correct"] & ~table["robust"]].tolist())


@pytest.fixture(scope="module")
def several(evaluate: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluate(LIST, runs=tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="module")
def alone(evaluate: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, np.ndarray]]:
    """Return the samples of runs at one radius each."""
    return [samples(evaluate(f"threat.eps={eps}", runs=tmp_path_factory.mktemp("alone"))) for eps in RADII]


def test_every_radius_is_the_union_of_runs_up_to_it(several: Path, alone: list[dict[str, np.ndarray]]) -> None:
    found = samples(several)
    union: set[int] = set()
    missed_again = 0
    for eps, single in zip(RADII, alone, strict=True):
        missed_again += len(union - broken(single))
        entered = found["clean_correct"] & ~np.isin(found["id"], list(union))
        union |= broken(single)
        assert set(found["id"][found["broken_at_eps"] <= eps].tolist()) == union
        newly = found["broken_at_eps"] == eps
        assert set(found["broken_by"][newly]) == {f"pgd@{eps:g}"}
        # What breaks here is the same image, for the same passes, as without the list.
        np.testing.assert_array_equal(newly, entered & ~single["robust"])
        for name in ("distance_linf", "distance_l2", "attacked_logsumexp", "attacked_prediction"):
            np.testing.assert_array_equal(found[name][newly], single[name][newly])
    assert missed_again > 20, "or the last run alone would do"
    assert found["robust"].sum() > 5
    assert broken(found) == union
    clean = int(found["clean_correct"].sum())
    curve = results(several)["robust"]["curve"]
    assert [point["eps"] for point in curve] == [0.0, *RADII]
    counts = [int((found["broken_at_eps"] <= eps).sum()) for eps in RADII]
    assert [point["correct"] for point in curve] == [clean, *(clean - count for count in counts)]
    assert {key: value for key, value in curve[-1].items() if key != "eps"} == results(several)["robust"]["accuracy"]
    assert results(several)["threat"]["eps"] == [0.0, *RADII]
    assert (several / "figures" / "curve.png").is_file()
    assert run(["verify", str(several)]) == 0


def test_what_is_broken_is_carried_and_not_attacked_again(several: Path, alone: list[dict[str, np.ndarray]]) -> None:
    found = samples(several)
    for name, clean in (("forward_passes", 1), ("backward_passes", 0)):
        wanted, standing = np.full(len(found["id"]), clean), found["clean_correct"].copy()
        for single in alone:
            wanted += np.where(standing, single[name] - clean, 0)
            standing &= single["robust"]
        np.testing.assert_array_equal(found[name], wanted)


def test_one_radius_in_a_list_is_that_run(evaluate: Callable[..., Path], tmp_path: Path) -> None:
    single = evaluate("threat.eps=0.1", runs=tmp_path / "single")
    listed = evaluate("threat.eps=[0.1]", runs=tmp_path / "listed")
    assert single.name == listed.name
    assert (single / "samples.parquet").read_bytes() == (listed / "samples.parquet").read_bytes()
    assert "curve" not in results(listed)["robust"]


def test_the_whole_budget_on_every_image_at_every_radius(evaluate: Callable[..., Path], tmp_path: Path) -> None:
    folder = evaluate(LIST, "engine.stop=never", "evidence=all", runs=tmp_path / "several")
    found = samples(folder)
    single = [samples(evaluate(f"threat.eps={eps}", "engine.stop=never", runs=tmp_path / str(eps))) for eps in RADII]
    union: set[int] = set()
    for eps, table in zip(RADII, single, strict=True):
        union |= broken(table)
        assert set(found["id"][found["broken_at_eps"] <= eps].tolist()) == union
    loss = {part: t["attacked_logsumexp"] - t["attacked_label_logit"] for part, t in enumerate([found, *single])}
    fell = np.stack([~table["robust"] for table in single])
    each = np.stack([loss[part] for part in (1, 2, 3)])
    highest = np.where(fell.any(0), np.where(fell, each, -np.inf).max(0), each.max(0))
    np.testing.assert_array_equal(loss[0], np.maximum(highest, np.where(fell.any(0), -np.inf, loss[0])))
    assert (found["attacked_prediction"][~found["robust"]] != found["label"][~found["robust"]]).all()
    assert results(folder)["attacked"]["point"] == "max_loss"
    assert run(["verify", str(folder)]) == 0


def test_an_image_is_checked_against_the_ball_in_which_it_was_broken(several: Path, tmp_path: Path) -> None:
    """As if what broke it at the largest radius were claimed at the smallest."""
    for name in ("run.json", "config.yaml", "results.json"):
        (tmp_path / name).write_bytes((several / name).read_bytes())
    for name in ("shards", "adversarials", "forensics"):
        (tmp_path / name).symlink_to(several / name)
    table = pq.read_table(several / "samples.parquet")
    at = table["broken_at_eps"].to_numpy(zero_copy_only=False)
    for claimed, faults in ((at, 0), (np.where(at == 0.4, 0.02, at), int((at == 0.4).sum()))):
        column = pa.array(claimed, mask=np.isnan(claimed))
        number = table.column_names.index("broken_at_eps")
        (tmp_path / "samples.parquet").write_bytes(shards.encode(table.set_column(number, "broken_at_eps", column)))
        found = repredict(RunFolder.open(tmp_path), "cpu")
        assert found.kept == found.broken > 0
        assert len(found.faults) == faults
        assert all("outside the threat model" in fault for fault in found.faults)


@pytest.mark.parametrize("lost", [("pgd@0.2", 1), ("pgd@0.4", 0), ("pgd@0.02", 2), ("clean", 1)])
def test_what_is_lost_in_the_middle_is_made_again(
    evaluate: Callable[..., Path], several: Path, lost: tuple[str, int], tmp_path: Path
) -> None:
    folder = evaluate(LIST, runs=tmp_path)
    wanted = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.parquet")}
    (shard,) = (folder / "shards").glob(f"*-{lost[0]}/{lost[1]:05d}-*.parquet")
    for path in (shard, folder / "samples.parquet", folder / "results.json"):
        path.unlink()
    assert evaluate(LIST, runs=tmp_path) == folder
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.parquet")} == wanted
    again, before = results(folder), results(several)
    for key in set(again) - {"cost", "provenance", "sinks"}:
        assert again[key] == before[key], key


def test_a_minimum_norm_run_serves_every_radius(tmp_path: Path) -> None:
    attack = ["model=mnist_cnn", "attack=fmn", "attack.steps=12", "attack.n_targets=2", "dataset.n=48", "logger=none"]
    one = made(*attack, "threat.eps=0.2", runs=tmp_path / "one")
    several = made(*attack, "threat.eps=[0.05,0.1,0.2,0]", runs=tmp_path / "several")
    assert [path.name for path in sorted((several / "shards").iterdir())] == ["00-clean", "01-fmn"]
    single, found = samples(one), samples(several)
    for name in set(found) - {"broken_at_eps"}:
        np.testing.assert_array_equal(np.stack([*found[name]]), np.stack([*single[name]]))
    distance = np.where(found["clean_correct"], found["adversarial_distance"], np.nan)
    expected = np.full(len(distance), np.nan)
    for eps in (0.2, 0.1, 0.05):
        expected[distance <= eps] = eps
    np.testing.assert_array_equal(found["broken_at_eps"], expected)
    assert len(set(expected[np.isfinite(expected)])) == 3
    np.testing.assert_array_equal(single["broken_at_eps"], np.where(distance <= 0.2, 0.2, np.nan))
    for folder in (one, several):
        for point in results(folder)["robust"]["curve"]:
            assert point["correct"] == (found["clean_correct"] & ~(distance <= point["eps"])).sum()
        assert run(["verify", str(folder)]) == 0
    assert [point["eps"] for point in results(several)["robust"]["curve"]] == [0.0, 0.05, 0.1, 0.2]
    radii = [point["eps"] for point in results(one)["robust"]["curve"]]
    assert len(radii) in (21, 22)
    assert 0.2 in radii
    assert radii[-1] >= np.nanmax(distance)
