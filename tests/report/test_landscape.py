"""The landscape of a survey: drawn for every run that has one, and counted class by class from its shards."""

from pathlib import Path

import numpy as np
import pytest

from robusteval.cli import run
from robusteval.evidence import samples
from robusteval.evidence.folder import RunFolder
from robusteval.report import figures

pytest.importorskip("mlxtend")


def test_a_survey_has_a_landscape_and_its_classes_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(figures, "draw_landscape", lambda path, *given: drawn.append(given) or path)
    command = ["model=mnist_cnn", "attack=translate", "attack.mode=exhaustive", "dataset.n=48", "logger=none"]
    assert run([*command, "checks=off", f"runs.dir={tmp_path}"]) == 0
    (path,) = (found.parent for found in tmp_path.glob("*/results.json"))
    folder = RunFolder.open(path)
    ((_, survey, fooling, _),) = drawn
    table = folder.samples()
    labels, right = table["label"].to_numpy(), table["clean_correct"].to_numpy(zero_copy_only=False)
    assert fooling.labels.tolist() == sorted(set(labels[right]))
    assert fooling.n.tolist() == [int((labels[right] == label).sum()) for label in fooling.labels]
    # A number for all may also put right what was wrong without it, which the survey counts and the landscape does not.
    kept = right.sum() - fooling.fooled.sum(0)
    standing = np.array([point["value"] for point in survey["universal"]]) * len(labels)
    assert (kept <= standing + 1e-6).all()
    assert (standing <= kept + (~right).sum() + 1e-6).all()
    assert (fooling.fooled <= fooling.n[:, None]).all()
    assert fooling.fooled.any()
    again = samples.fooling_by_class(folder)
    assert again is not None
    assert np.array_equal(again.fooled, fooling.fooled)
