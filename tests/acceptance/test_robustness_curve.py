"""Two ways to one curve: a minimum-norm search, and searches of the balls by themselves."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from robusteval.cli import run

RADII = (0.1, 0.2, 0.3)


def results(folder: Path, *overrides: str) -> dict[str, Any]:
    assert run(["model=mnist_cnn_at", "logger=none", f"runs.dir={folder}", *overrides]) == 0
    (file,) = folder.glob("*/results.json")
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    ("n", "fmn", "apgd"),
    [pytest.param(100, 100, 40, marks=[pytest.mark.slow]), pytest.param(200, 100, 100, marks=[pytest.mark.real])],
    ids=["few", "many"],
)
@pytest.mark.timeout(900)
def test_the_curve_of_fmn_is_that_of_apgd_to_one_point(n: int, fmn: int, apgd: int, tmp_path: Path) -> None:
    found = results(
        tmp_path / "fmn",
        f"dataset.n={n}",
        "attack=fmn",
        "attack.n_targets=3",
        f"attack.steps={fmn}",
        "threat.eps=[0.1,0.2,0.3]",
    )
    curve = found["robust"]["curve"]
    alone = [
        results(tmp_path / f"apgd-{eps}", f"dataset.n={n}", "attack=apgd", f"attack.steps={apgd}", f"threat.eps={eps}")[
            "robust"
        ]["accuracy"]
        for eps in RADII
    ]
    assert [point["eps"] for point in curve] == list(RADII)
    for minimum, fixed in zip(curve, alone, strict=True):
        assert abs(minimum["value"] - fixed["value"]) <= 0.01 + 1e-9, (curve, alone)
    correct = [found["clean"]["accuracy"]["correct"], *(rate["correct"] for rate in alone)]
    assert correct[0] - correct[-1] > n // 10, "there is a curve to agree on"
    rises = [after - before for before, after in itertools.pairwise(correct)]
    assert max(rises) <= 1, "independent runs at rising eps"
