"""A minimum-norm run from the command line to its files: distances for a whole curve, and evidence that verifies."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from robusteval.cli import run

RUN = [
    "model=mnist_cnn",
    "attack=fmn",
    "attack.steps=12",
    "attack.n_targets=2",
    "dataset.n=32",
    "engine.chunk=16",
    "logger=none",
]


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l1", 8.0)])
def test_samples_hold_the_distance_of_the_nearest_adversarial(norm: str, eps: float, tmp_path: Path) -> None:
    assert run([*RUN, f"threat.norm={norm}", f"threat.eps={eps}", f"runs.dir={tmp_path}", "evidence=all"]) == 0
    (folder,) = (path.parent for path in tmp_path.glob("*/results.json"))
    results = json.loads((folder / "results.json").read_text())
    assert results["attacked"]["point"] == "nearest"
    table = pq.read_table(folder / "samples.parquet")
    distance = table["adversarial_distance"].to_numpy(zero_copy_only=False).astype(float)
    correct = table["clean_correct"].to_numpy(zero_copy_only=False)
    robust = table["robust"].to_numpy(zero_copy_only=False)
    found = np.isfinite(distance)
    assert found.sum() > 16
    assert not found[~correct].any(), "what is wrong already is not attacked"
    np.testing.assert_array_equal(robust, correct & ~(found & (distance <= eps)))
    if norm == "linf":
        np.testing.assert_array_equal(distance[found], table["distance_linf"].to_numpy()[found])
    attacked = table["attacked_prediction"].to_numpy()
    assert (attacked[found] != table["label"].to_numpy()[found]).all(), "also those outside the radius"
    assert 0 < robust.sum() < correct.sum()
    assert run(["verify", str(folder)]) == 0


def test_attacks_without_such_a_distance_say_so(finished: Path) -> None:
    assert pq.read_table(finished / "samples.parquet")["adversarial_distance"].null_count == 96


def test_the_goal_must_be_the_first_class(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*RUN, "threat.goal=top5"]) == 2
    assert "takes no threat.goal=top5; use threat.goal=top1" in capsys.readouterr().err
