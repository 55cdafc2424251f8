"""Shards of one plan from several folders, and the worst of several attacks: joined exactly, or refused by name."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robusteval.cli import run
from robusteval.evidence import atomic, shards
from robusteval.evidence.folder import RunFolder
from robusteval.merge.fields import other_plan

Part = Callable[[str, list[int]], Path]


def derive_again(folder: Path) -> None:
    for name in ("results.json", "samples.parquet"):
        (folder / name).unlink()


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def same(folder: Path, finished: Path) -> bool:
    mine, theirs = results(folder), results(finished)
    for value in (mine, theirs):
        value["cost"] = {key: count for key, count in value["cost"].items() if key.endswith("_passes")}
        del value["provenance"], value["sinks"]
    samples = [(path / "samples.parquet").read_bytes() for path in (folder, finished)]
    return json.dumps(mine) == json.dumps(theirs) and samples[0] == samples[1]


@pytest.fixture
def part(finished: Path, tmp_path: Path) -> Part:
    """Return a maker of copied run folders that hold only some chunks, as another machine would have left them."""

    def make(name: str, chunks: list[int]) -> Path:
        folder = Path(shutil.copytree(finished, tmp_path / name / finished.name))
        derive_again(folder)
        shutil.rmtree(folder / "figures")
        for path in [*folder.glob("shards/*/*"), *folder.glob("adversarials/*/*")]:
            if int(path.name.partition("-")[0]) not in chunks:
                path.unlink()
        return folder

    return make


def test_one_run_is_finished_or_told_what_it_lacks(
    damaged: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    derive_again(damaged)
    victim = next(damaged.glob("shards/*pgd/00001-*"))
    kept = victim.rename(damaged / victim.name)
    assert run(["merge", str(damaged)]) == 1
    assert "1 of 3 chunks are missing: 1 (pgd)" in capsys.readouterr().err
    kept.rename(victim)
    assert run(["merge", str(damaged)]) == 0
    assert same(damaged, finished)
    assert (damaged / "figures" / "gallery.png").is_file()
    assert run(["merge", str(damaged)]) == 0  # complete: shown
    assert capsys.readouterr().out.splitlines()[-1] == str(damaged)


def test_folders_of_one_plan_are_joined(part: Part, finished: Path, tmp_path: Path) -> None:
    one, two, into = part("one", [0, 1]), part("two", [1, 2]), tmp_path / "whole" / "run"
    before = sorted(path.name for path in one.rglob("*"))
    assert run(["merge", str(one), str(two), "--into", str(into)]) == 0
    assert same(into, finished)
    assert sorted(path.name for path in one.rglob("*")) == before
    assert run(["verify", str(into)]) == 0
    assert run(["merge", str(one), str(two)]) == 0  # into the first
    assert same(one, finished)


def test_a_join_that_lacks_chunks_keeps_what_there_is(
    part: Part, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into = tmp_path / "whole"
    assert run(["merge", str(part("one", [0])), str(part("two", [2])), "--into", str(into)]) == 1
    assert "1 of 3 chunks are missing: 1" in capsys.readouterr().err
    assert run(["merge", str(into), str(part("three", [1]))]) == 0
    assert same(into, finished)


def test_the_gallery_is_left_out_where_the_images_are_not(
    part: Part, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = part("one", [0, 1, 2])
    monkeypatch.setattr("robusteval.datasets.mnist_5k.Mnist5k.missing", lambda _: "no images here", raising=True)
    assert run(["merge", str(whole)]) == 0
    assert "no gallery of examples (no images here)" in capsys.readouterr().err
    assert same(whole, finished)
    assert not (whole / "figures" / "gallery.png").exists()


def test_a_damaged_shard_is_left_out_and_mended_by_the_other(
    part: Part, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = part("one", [0, 1, 2]), part("two", [0, 1, 2])
    hit = [next(folder.glob(f"shards/*pgd/{chunk:05}-*")) for folder, chunk in ((one, 1), (two, 2))]
    for path in hit:
        path.write_bytes(path.read_bytes()[:-9])
    assert run(["merge", str(one), str(two)]) == 0
    assert capsys.readouterr().err.count("damaged or foreign") == 2
    assert same(one, finished)
    assert hit[1].is_file()  # the other folder is as it was


def test_different_bytes_for_one_unit_are_refused(part: Part, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = part("one", [0, 1]), part("two", [1, 2])
    victim = next(two.glob("shards/*clean/00001-*"))
    target = RunFolder(two).shards("clean")
    table = shards.read(victim)
    position = table.column_names.index("clean_confidence")
    moved = table.set_column(position, "clean_confidence", [np.zeros(len(table))])
    victim.unlink()
    target.write(1, moved, on_grid="True")
    count = len(list(one.rglob("*.parquet")))
    assert run(["merge", str(one), str(two)]) == 2
    assert "different bytes for chunk 1 of stage clean" in capsys.readouterr().err
    assert len(list(one.rglob("*.parquet"))) == count


PLAN = ["n", "chunk", "chunks", "stages", "gradients", "averages_gradients", "mode", "published", "point", "forensics"]
OTHER = [
    *(f"plan.{name}" for name in PLAN),
    *(f"digests.{name}" for name in ("model", "dataset", "preprocessing")),
    *("seed", "stop", "draws", "bitwise", "evidence", "evidence_limit", "schema", "fingerprint"),
    *("oracle.form", "oracle.precisions", "threat.eps", "threat.norm", "threat.goal", "attack.steps", "model.classes"),
]


@pytest.mark.parametrize("field", OTHER)
def test_another_plan_is_refused_by_its_field(
    field: str, part: Part, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robusteval.merge.command.join", None)  # nothing may be copied
    one, two = part("one", [0]), part("two", [1])
    facts = json.loads((two / "run.json").read_text())
    *sections, name = field.split(".")
    there = facts
    for section in sections:
        there = there[section]
    assert name in there
    there[name] = ["clean"] if name == "stages" else 77
    (two / "run.json").write_text(json.dumps(facts))
    assert run(["merge", str(one), str(two)]) == 2
    assert f"is no share of the run {one}: {field} is " in capsys.readouterr().err


def test_every_field_of_the_plan_is_tried(finished: Path) -> None:
    facts = json.loads((finished / "run.json").read_text())
    assert set(facts["plan"]) == set(PLAN)
    assert other_plan(facts, facts) is None


def test_where_a_merge_cannot_go(part: Part, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = part("one", [0])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for given, said in (
        ([one, one], "named twice"),
        ([one, "--into", tmp_path / "full"], "not empty and no run"),
        ([one, tmp_path], "is not a run"),
    ):
        assert run(["merge", *map(str, given)]) == 2
        assert said in capsys.readouterr().err


# Attacks.


@pytest.fixture(scope="module")
def attacked(finished: Path, tmp_path_factory: pytest.TempPathFactory, command: list[str]) -> dict[str, Path]:
    """Return finished runs by name: the PGD run, FGSM, noise and PGD of another seed, on the same images."""
    runs = tmp_path_factory.mktemp("attacks")
    made = {"pgd": Path(shutil.copytree(finished, runs / finished.name))}
    base = [option for option in command if "steps" not in option]
    for name, given in (
        ("fgsm", [*base, "attack=fgsm"]),
        ("noise", [*base, "attack=noise"]),
        ("seed", [*command, "seed=0", "attack.steps=2"]),
    ):
        before = set(runs.glob("*/run.json"))
        assert run([*given, f"runs.dir={runs}"]) == 0
        (new,) = set(runs.glob("*/run.json")) - before
        made[name] = new.parent
    return made


def test_the_worst_of_attacks_is_that_of_every_image(
    attacked: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [attacked["fgsm"], attacked["pgd"], attacked["noise"]]
    capsys.readouterr()
    assert run(["merge", *map(str, parts)]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert folder.parent == parts[0].parent
    tables = [RunFolder(path).samples() for path in parts]
    robust = np.array([table["robust"].to_numpy(zero_copy_only=False) for table in tables])
    table, said = RunFolder(folder).samples(), results(folder)
    assert (table["robust"].to_numpy(zero_copy_only=False) == robust.all(0)).all()
    assert said["robust"]["accuracy"]["correct"] == int(robust.all(0).sum())
    correct = tables[0]["clean_correct"].to_numpy(zero_copy_only=False)
    first = [next((name for name, held in zip(("fgsm", "pgd", "noise"), column, strict=True) if not held), None)
             for column in robust.T]  # fmt: skip
    assert table["broken_by"].to_pylist() == [name if c else None for name, c in zip(first, correct, strict=True)]
    broken = correct & ~robust
    assert [row["broken"] for row in said["robust"]["by_stage"]] == [
        int(broken[0].sum()),
        int((broken[1] & ~broken[0]).sum()),
        int((broken[2] & ~broken[1] & ~broken[0]).sum()),
    ]
    assert [row["broken"] for row in said["parts"]] == broken.sum(1).tolist()
    assert [row["alone"] for row in said["parts"]] == (broken & (broken.sum(0) == 1)).sum(1).tolist()
    assert said["cost"]["forward_passes"] == sum(results(path)["cost"]["forward_passes"] for path in parts)
    assert said["cost"]["seconds"] == pytest.approx(sum(results(path)["cost"]["seconds"] for path in parts), abs=0.01)
    assert set(results(parts[0])) - {"survey", "perturbation"} <= set(said)
    # The kept image is the breaking attack's.
    for row, name in enumerate(table["broken_by"].to_pylist()):
        origin = {"fgsm": 0, "pgd": 1, "noise": 2, None: None}[name]
        if origin is not None:
            assert table["attacked_top_logits"][row] == tables[origin]["attacked_top_logits"][row]
            assert table["distance_linf"][row] == tables[origin]["distance_linf"][row]
    assert run(["merge", *map(str, parts)]) == 0  # there already
    assert run(["status", str(folder)]) == 0
    assert run(["push", str(folder), "--mode", "offline"]) in (0, 1)  # as W&B is installed, never a traceback


def test_verify_of_a_merge_sees_its_parts(
    attacked: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    parts = [Path(shutil.copytree(attacked[name], runs / attacked[name].name)) for name in ("pgd", "fgsm")]
    whole = runs / "worst"
    assert run(["merge", *map(str, parts), "--into", str(whole)]) == 0
    moved = Path(shutil.move(runs, tmp_path / "moved"))  # named relative to each other, so they move together
    whole, parts = moved / "worst", [moved / path.name for path in parts]
    capsys.readouterr()
    assert run(["verify", str(whole)]) == 0
    out = capsys.readouterr().out
    assert out.count("adversarials: ") == 2
    assert "follow from the parts (8 files)" in out
    victim = next(parts[1].glob("adversarials/*/*"))
    data = victim.read_bytes()
    victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert run(["verify", str(whole)]) == 1
    assert f"FAIL {victim}" in capsys.readouterr().out
    assert run(["verify", "--files", str(whole)]) == 0
    shutil.rmtree(parts[1])
    assert run(["verify", str(whole)]) == 0
    assert "no run at" in capsys.readouterr().out
    copy = whole / "parts" / "pgd" / "samples.parquet"
    copy.write_bytes(copy.read_bytes()[:-1])
    assert run(["verify", "--files", str(whole)]) == 1
    assert f"FAIL {copy} does not match its checksum" in capsys.readouterr().out


def test_results_of_a_merge_that_were_changed_are_named(
    attacked: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "worst"
    assert run(["merge", str(attacked["pgd"]), str(attacked["noise"]), "--into", str(whole)]) == 0
    said = results(whole)
    said["robust"]["accuracy"]["correct"] += 1
    (whole / "results.json").write_bytes(atomic.to_json(said))
    assert run(["verify", "--files", str(whole)]) == 1
    assert "'robust' does not follow from the parts" in capsys.readouterr().out


def test_stages_of_one_name_are_told_apart(attacked: dict[str, Path], tmp_path: Path) -> None:
    whole = tmp_path / "worst"
    assert run(["merge", str(attacked["pgd"]), str(attacked["seed"]), "--into", str(whole)]) == 0
    assert [row["stage"] for row in results(whole)["robust"]["by_stage"]] == ["pgd", "pgd-2"]
    assert [row["name"] for row in results(whole)["parts"]] == ["pgd", "pgd-2"]


def test_attacks_that_cannot_be_compared_are_refused_by_the_field(
    attacked: dict[str, Path], part: Part, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = json.loads((attacked["fgsm"] / "run.json").read_text())
    for field, value in (
        ("digests.model", "0" * 64),
        ("digests.dataset", "0" * 64),
        ("digests.preprocessing", "other"),
        ("threat.norm", "l2"),
        ("threat.goal", "top5"),
        ("threat.eps", 0.2),
        ("draws", 20),
        ("plan.n", 95),
    ):
        copied = Path(shutil.copytree(attacked["fgsm"], tmp_path / field))
        changed = json.loads(json.dumps(facts))
        *sections, name = field.split(".")
        there = changed
        for section in sections:
            there = there[section]
        there[name] = value
        (copied / "run.json").write_text(json.dumps(changed))
        assert run(["merge", str(attacked["pgd"]), str(copied)]) == 2
        assert f": {field} is " in capsys.readouterr().err
    assert run(["merge", str(attacked["fgsm"]), str(part("half", [0]))]) == 2
    said = capsys.readouterr().err
    assert "is not complete (2 of 3 chunks are missing: 1, 2)" in said
    assert "no share of" in said


def test_curves_merge_at_every_radius(tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Two attacks at two radii: an image breaks at the smallest radius at which any of them broke it."""
    base = [option for option in command if "steps" not in option and "eps" not in option and "dataset.n" not in option]
    base = [*base, "dataset.n=32", "threat.eps=[0.05,0.15]", f"runs.dir={tmp_path}"]
    parts = []
    for attack in (["attack=noise"], ["attack=fgsm"]):
        assert run([*base, *attack]) == 0
        parts.append(Path(capsys.readouterr().out.splitlines()[-1]))
    assert run(["merge", *map(str, parts)]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    said = results(folder)
    assert [row["stage"] for row in said["robust"]["by_stage"]] == [
        "noise@0.05",
        "fgsm@0.05",
        "noise@0.15",
        "fgsm@0.15",
    ]
    at = [RunFolder(path).samples()["broken_at_eps"].to_numpy(zero_copy_only=False) for path in (*parts, folder)]
    assert np.array_equal(np.fmin(at[0], at[1]), at[2], equal_nan=True)
    correct = RunFolder(folder).samples()["clean_correct"].to_numpy(zero_copy_only=False)
    for point in said["robust"]["curve"]:
        assert point["correct"] == int((correct & ~(np.fmin(at[0], at[1]) <= point["eps"])).sum())
    assert (folder / "figures" / "curve.png").is_file()
    assert run(["verify", str(folder)]) == 0


@pytest.mark.slow
def test_the_command_as_a_user_runs_it(part: Part, finished: Path) -> None:
    folders = [str(part("one", [0, 1])), str(part("two", [2]))]
    done = subprocess.run(
        [sys.executable, "-m", "robusteval", "merge", *folders], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert same(Path(folders[0]), finished)
