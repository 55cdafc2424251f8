"""Comparing runs: same images or a refusal, and every number against one computed here in another way."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binomtest

from robusteval.errors import UserError
from robusteval.evidence.folder import RunFolder, write_json
from robusteval.report import compare

MakeRun = Callable[..., RunFolder]


@pytest.fixture
def runs(make_run: MakeRun, samples: pa.Table) -> list[RunFolder]:
    """Return three runs on the same images: a weaker one, a stronger one, and one that hardly differs from it."""
    rng = np.random.default_rng(5)
    weak, strong = rng.random(len(samples)) < 0.4, rng.random(len(samples)) < 0.7
    similar = strong.copy()
    similar[:3] = ~similar[:3]
    return [make_run("weak", weak), make_run("strong", strong), make_run("similar", similar)]


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert compare.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def robust(run: RunFolder) -> np.ndarray:
    return run.samples()["robust"].to_numpy()


def test_difference_p_and_ids_are_those_of_the_samples(
    runs: list[RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(said(capsys, runs[0].path, runs[1].path, "--format", "json"))
    (pair,) = found["pairs"]
    mine, theirs = robust(runs[0]), robust(runs[1])
    only, other = int((mine & ~theirs).sum()), int((~mine & theirs).sum())
    part = pair["robust"]
    assert part["difference"]["value"] == pytest.approx(mine.mean() - theirs.mean())
    assert part["p"] == part["p_holm"] == binomtest(only, only + other).pvalue
    rng = np.random.default_rng(8)
    rows = rng.integers(0, len(mine), (5000, len(mine)))
    drawn = np.quantile(mine[rows].mean(1) - theirs[rows].mean(1), [0.025, 0.975])
    assert [part["difference"]["bootstrap_low"], part["difference"]["bootstrap_high"]] == pytest.approx(
        drawn, abs=0.012
    )
    assert [part["difference"]["low"], part["difference"]["high"]] == pytest.approx(drawn, abs=0.02)
    ids = runs[0].samples()["id"].to_numpy()
    assert pair["only"] == {"A": ids[mine & ~theirs].tolist(), "B": ids[~mine & theirs].tolist()}
    assert found["difficulty"]["all"] == int((mine & theirs).sum())
    assert sum(found["difficulty"].values()) == len(ids)
    assert pair["clean"]["p"] == 1.0
    assert pair["clean"]["consistency"]["kappa"] == 1.0


def test_classes_and_stages_add_up(runs: list[RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, runs[0].path, runs[1].path, "--format", "json"))
    (pair,) = found["pairs"]
    labels, mine = runs[0].samples()["label"].to_numpy(), robust(runs[0])
    for row in pair["by_class"]:
        assert row["first"] == pytest.approx(mine[labels == row["class"]].mean())
        assert row["n"] == int((labels == row["class"]).sum())
    for side in ("only_first", "only_second"):
        assert sum(row[side] for row in pair["by_class"]) == pair["robust"][side]
    fell = {(row["run"], row["stage"]): row for row in pair["by_stage"]}
    assert fell["A", "pgd"]["other_survives"] == pair["robust"]["only_second"]
    assert fell["B", "pgd"]["other_survives"] == pair["robust"]["only_first"]
    assert fell["A", "pgd"]["fell"] + fell["A", "wrong without attack"]["fell"] == int((~mine).sum())


def test_several_pairs_are_adjusted_together(runs: list[RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, *(run.path for run in runs), "--format", "csv")
    rows = [row for row in csv.DictReader(io.StringIO(out)) if row["accuracy"] == "robust"]
    assert [row["pair"] for row in rows] == ["A − B", "A − C", "B − C"]
    p = sorted(float(row["p"]) for row in rows)
    stepped = [min(1.0, p[0] * 3), min(1.0, max(p[0] * 3, p[1] * 2)), min(1.0, max(p[0] * 3, p[1] * 2, p[2]))]
    assert sorted(float(row["p_holm"]) for row in rows) == pytest.approx(stepped)


def test_the_table_fits_and_says_who_is_better(runs: list[RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, runs[0].path, runs[1].path)
    assert "B is more robust than A, by" in out
    assert "(p < 0.0001)" in out
    alike = said(capsys, runs[1].path, runs[2].path)
    assert "do not tell A from B" in alike
    several = said(capsys, *(run.path for run in runs))
    assert "p adjusted for 3 pairs" in several
    paths = {f"{letter}: {run.path}" for letter, run in zip("ABC", runs, strict=True)}
    for text in (out, alike, several):
        assert max(len(line) for line in text.splitlines() if line not in paths and not line.startswith("A: ")
                   and ": /" not in line and "survive" not in line and "tell" not in line) <= 100  # fmt: skip
    assert paths <= set(several.splitlines())


def test_ids_lists_the_images_that_not_all_survive(runs: list[RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(said(capsys, *(r.path for r in runs), "--ids", "--format", "csv"))))
    flags = np.stack([robust(run) for run in runs])
    ids = runs[0].samples()["id"].to_numpy()
    assert [int(row["id"]) for row in rows] == ids[flags.any(0) & ~flags.all(0)].tolist()
    assert {row["A"] for row in rows} == {"robust", "pgd"}
    by_id = {int(row["id"]): row for row in rows}
    for run, letter in zip(runs, "ABC", strict=True):
        for sample, stands in zip(ids.tolist(), robust(run).tolist(), strict=True):
            assert sample not in by_id or (by_id[sample][letter] == "robust") == stands


@pytest.mark.parametrize("kind", ["pairs", "classes", "stages"])
def test_every_kind_of_row_has_every_format(
    runs: list[RunFolder], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    both = (runs[0].path, runs[1].path, "--by", kind)
    rows = list(csv.DictReader(io.StringIO(said(capsys, *both, "--format", "csv"))))
    assert rows
    table = said(capsys, *both, "--format", "md").splitlines()
    assert len(table) == len(rows) + 2
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "A − B" in said(capsys, *both)


def test_other_images_are_refused(
    runs: list[RunFolder], make_run: MakeRun, samples: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    fewer = make_run("fewer", table=samples.slice(0, 100))
    with pytest.raises(UserError, match=r"not about the same images: 100 .* 240 .* 100 ids in common"):
        compare.main([str(runs[0].path), str(fewer.path)])
    facts = json.loads(runs[1].run_file.read_bytes())
    facts["digests"]["dataset"] = "cc"
    write_json(runs[1].run_file, facts)
    with pytest.raises(UserError, match="their ids are the same but not their content"):
        compare.main([str(runs[0].path), str(runs[1].path)])
    assert capsys.readouterr().out == ""


def test_what_cannot_be_compared_is_told(runs: list[RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="name two or more"):
        compare.main([str(runs[0].path)])
    with pytest.raises(UserError, match="named twice"):
        compare.main([str(runs[0].path), str(runs[0].path) + "/"])
    runs[2].samples_file.write_bytes(runs[0].samples_file.read_bytes())
    with pytest.raises(UserError, match="is not what results"):
        compare.main([str(runs[0].path), str(runs[2].path)])
    runs[1].results_file.unlink()
    with pytest.raises(UserError, match="not complete"):
        compare.main([str(runs[0].path), str(runs[1].path)])


def test_differences_in_threat_and_options_are_named_and_daggers_stay(
    runs: list[RunFolder], make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_run(
        "other",
        robust(runs[0]),
        threat={"norm": "linf", "eps": 4 / 255, "goal": "top1", "region": None},
        attack={"name": "pgd", "steps": 7},
        checks=[{"id": "gradient", "verdict": "fail", "summary": "no"}],
    )
    out = said(capsys, runs[0].path, other.path)
    assert "attack.steps (40, 7)" in out
    assert "each robust accuracy answers a question of its own" in out
    assert "% †" in out
    assert "† a check failed" in out
    found = json.loads(said(capsys, runs[0].path, other.path, "--format", "json"))
    assert {entry["field"]: entry["values"] for entry in found["differences"]} == {
        "threat": ["linf 8/255, top1", "linf 4/255, top1"],
        "attack.steps": [40, 7],
    }


def test_runs_over_several_radii_are_compared_at_the_common_ones(
    runs: list[RunFolder], make_run: MakeRun, samples: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    many: dict[str, Any] = {"norm": "linf", "eps": [4 / 255, 8 / 255, 16 / 255], "goal": "top1", "region": None}
    fell = samples["clean_correct"].to_numpy()
    at = np.where(fell, np.resize([4 / 255, 8 / 255, 16 / 255], len(fell)), np.nan)
    place = samples.column_names.index("broken_at_eps")
    table = samples.set_column(place, "broken_at_eps", pa.array(at, mask=np.isnan(at)))
    curve = [{"eps": eps, "value": 0.5, "low": 0.4, "high": 0.6, "correct": 1, "n": 2} for eps in many["eps"]]
    several = make_run("several", table=table, threat=many)
    results = several.results()
    results["robust"]["curve"] = curve
    write_json(several.results_file, results)
    (pair,) = json.loads(said(capsys, several.path, runs[0].path, "--format", "json"))["pairs"]
    (row,) = pair["at"]
    assert row["eps"] == 8 / 255
    stands = fell & ~(at <= 8 / 255)
    assert row["difference"]["value"] == pytest.approx(stands.mean() - robust(runs[0]).mean())
