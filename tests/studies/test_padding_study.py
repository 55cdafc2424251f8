"""The padding study in small: its numbers from the samples again, and what it says of runs that are missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from robusteval.cli import run
from robusteval.evidence.folder import RunFolder
from robusteval.metrics.paired import counts, mcnemar, score_interval
from robusteval.studies import padding

pytest.importorskip("mlxtend")
SMALL = ["experiment=padding_study", "model.mode=zeros,circular", "model.adversarial=false", "threat=linf_0.05_0.2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """The study of two modes, one training and one norm: six runs on 8 images, by one plain command."""
    folder = tmp_path_factory.mktemp("study")
    assert run([*SMALL, "dataset.n=8", f"runs.dir={folder}"]) == 0
    return [RunFolder(path.parent) for path in sorted(folder.glob("*/results.json"))]


def standing(runs: list[RunFolder], mode: str, attack: str, eps: float) -> np.ndarray:
    """Return which images are right clean and unbroken at a radius, image by image."""
    flags = []
    for folder in runs:
        config = OmegaConf.load(folder.path / "config.yaml")
        if config.model.mode == mode and config.attack.method == attack:
            for row in folder.samples().to_pylist():
                at = row["broken_at_eps"]
                flags.append(row["clean_correct"] and (row["robust"] or at is None or at > eps))
    return np.array(flags)


@pytest.mark.slow
def test_the_tables_follow_from_the_samples(runs):
    assert len(runs) == 6
    folder = runs[0].path.parent
    rows = json.loads((folder / "padding_study.json").read_text())["rows"]
    named = {(row["attack"], row["eps"]): row for row in rows}
    assert set(named) == {
        (padding.CLEAN, 0.0),
        *((attack, eps) for attack in ("apgd", "fab", "square", padding.WORST) for eps in (0.05, 0.2)),
    }
    attacks = ("apgd", "fab", "square")
    for (attack, eps), row in named.items():
        if attack == padding.CLEAN:
            continue
        due = {
            mode: np.logical_and.reduce(
                [standing(runs, mode, one, eps) for one in (attacks if attack == padding.WORST else [attack])]
            )
            for mode in ("zeros", "circular")
        }
        assert row["training"] == "standard"
        for mode, right in due.items():
            assert (row["modes"][mode]["correct"], row["modes"][mode]["n"]) == (int(right.sum()), 8)
        cells = counts(due["circular"], due["zeros"])
        found = row["modes"]["circular"]["difference"]
        assert found["value"] == pytest.approx((due["circular"].sum() - due["zeros"].sum()) / 8)
        assert (found["low"], found["high"]) == pytest.approx(score_interval(cells))
        assert (found["p"], found["against"]) == (mcnemar(cells), "zeros")
        assert "difference" not in row["modes"]["zeros"]
    page = (folder / "padding_study.md").read_text()
    assert page.count("| standard |") == 2 * len(rows) + len(attacks)


@pytest.mark.slow
def test_border_ratios_are_those_of_the_runs(runs):
    border = json.loads((runs[0].path.parent / "padding_study.json").read_text())["border"]
    assert [row["attack"] for row in border] == ["apgd", "fab", "square"]
    for folder in runs:
        config = OmegaConf.load(folder.path / "config.yaml")
        (row,) = (row for row in border if row["attack"] == config.attack.method)
        rings = {ring["ring"]: ring["ratio"] for ring in folder.results()["perturbation"]["border"]}
        assert row["modes"][config.model.mode] == rings[1]


def test_a_ratio_is_told_in_words_where_it_is_no_number():
    assert padding._ratio({"value": None, "low": None, "high": None, "infinite": True}) == "infinite"
    assert padding._ratio(None) == padding._ratio({"value": None, "low": None, "high": None}) == padding.NOTHING


@pytest.mark.slow
def test_runs_of_other_images_are_not_paired_and_missing_ones_are_counted(runs, capsys, tmp_path):
    several = padding.table(runs)
    half = [folder for folder in runs if "circular" in folder.path.name]
    assert padding.report([*(folder.path for folder in half), tmp_path / "nowhere"])
    said = capsys.readouterr().out
    assert "3 of 4 runs are complete" in said
    assert "circular" in said
    assert padding.report([Path(tmp_path / "nowhere")]) == []
    cells = [padding.Cell(training="t", mode=mode, attack="a", norm="linf", eps=0.1, ids=ids, right=ids > 1)
             for mode, ids in (("zeros", np.arange(4)), ("reflect", np.arange(1, 5)))]  # fmt: skip
    assert padding._paired(cells[1], cells[0]) == {}
    assert len(several) == 9
