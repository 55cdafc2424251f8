"""The notes on perturbations: the same however a run was computed, derived again from files, and held to the images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robusteval.cli import run
from robusteval.evidence import atomic, forensics, images
from robusteval.evidence.folder import RunFolder
from robusteval.evidence.verify import file_faults
from robusteval.metrics.perturbation import Shapes, describe

SMALL = ["model=mnist_cnn", "dataset.n=80", "engine.chunk=32", "logger=none", "checks=off"]


def made(folder: Path, *overrides: str) -> RunFolder:
    assert run([*SMALL, *overrides, f"runs.dir={folder}"]) == 0
    (found,) = folder.glob("mnist_cnn-*/results.json")
    return RunFolder.open(found.parent)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return made(tmp_path_factory.mktemp("whole"), "attack.steps=4", "threat.eps=0.2")


def perturbations(of: RunFolder) -> np.ndarray:
    """Return kept adversarials less clean images, [n, C, H, W], from the files and the dataset alone."""
    from robusteval.datasets.mnist_5k import Mnist5k
    from robusteval.models.bundled import Bundled

    dataset = Mnist5k(n=80).load(Bundled(name="mnist_cnn").load().preprocessing, 0)
    place = {int(sample): row for row, sample in enumerate(dataset.ids)}
    found = []
    for _, _, path in images.every(of):
        ids, kept = images.read(path)
        table = of.samples()
        right = dict(zip(table["id"].to_pylist(), table["clean_correct"].to_pylist(), strict=True))
        for sample, image in zip(ids.tolist(), kept, strict=True):
            if right[sample]:
                found.append((image.double() - dataset.images([place[sample]])[0].double()).numpy())
    return np.stack(found)


def test_the_section_is_that_of_the_kept_adversarials(whole: RunFolder) -> None:
    section, delta = whole.results()["perturbation"], perturbations(whole)
    assert section["n"] == len(delta) > 20
    due = json.loads(json.dumps(describe(Shapes.of(delta), seed=0)))
    for name, value in due.items():
        if name in ("rows", "columns"):
            np.testing.assert_allclose(section[name], value, rtol=1e-8)
        else:
            assert section[name] == value, name
    few = sum(min(len(forensics.read(path)["id"]), 16) for path in forensics.every(whole))  # of each chunk the first 16
    assert (section["rounding"]["survived"]["n"], section["saliency"]["n"]) == (few, few)
    assert section["passes"] == {"forward": few + 2 * few, "backward": 2 * few}
    assert sum(whole.samples()["forward_passes"].to_pylist()) == whole.results()["cost"]["forward_passes"]


def test_the_figure_and_the_page_show_them(whole: RunFolder) -> None:
    assert (whole.figures / "perturbation.png").is_file()
    _, _, section = whole.report.read_text().partition('id="perturbation"')
    assert "data:image/png;base64," in section.partition("<section")[0]


def test_saliency_is_the_gradient_of_the_largest_logit(whole: RunFolder) -> None:
    """Of the first noted image, by autograd on the network itself."""
    from robusteval.datasets.mnist_5k import Mnist5k
    from robusteval.models.bundled import Bundled

    classifier = Bundled(name="mnist_cnn").load()
    dataset = Mnist5k(n=80).load(classifier.preprocessing, 0)
    noted = forensics.read(next(iter(forensics.every(whole))))
    row = dataset.ids.tolist().index(int(noted["saliency_id"][0]))
    x = dataset.images([row]).requires_grad_()
    classifier.module.eval()(x).max().backward()
    slope = x.grad
    assert slope is not None
    due = slope[0].abs().amax(0).double()
    assert noted["saliency_clean_mass"][0] == pytest.approx(float(due.sum()), rel=1e-5)
    assert noted["saliency_clean_rings"][0][1] == pytest.approx(float(due.sum() - due[2:-2, 2:-2].sum()), rel=1e-4)


def test_slots_and_shards_give_the_same_notes(whole: RunFolder, tmp_path: Path) -> None:
    for number, options in enumerate((["engine.slots=7"], ["runtime.shards=2"])):
        other = made(tmp_path / str(number), "attack.steps=4", "threat.eps=0.2", *options)
        assert other.results()["perturbation"] == whole.results()["perturbation"]
        names = [[path.name for path in forensics.every(folder)] for folder in (whole, other)]
        assert names[0] == names[1]


def test_what_was_changed_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = made(tmp_path, "attack.steps=3", "threat.eps=0.2")
    assert run(["verify", str(changed.path)]) == 0
    path = next(iter(forensics.every(changed)))
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert any("does not match the checksum" in fault for fault in file_faults(changed))
    path.write_bytes(data)
    results = changed.results()
    results["perturbation"]["border"][0]["ratio"]["value"] = 2.0
    atomic.write(changed.results_file, atomic.to_json(results))
    assert any("'perturbation' does not follow" in fault for fault in file_faults(changed))
    noted = forensics.notes(changed)
    sample, values = next(iter(noted.items()))
    x, point = torch.zeros(1, 1, 28, 28), torch.zeros(1, 1, 28, 28)
    assert list(forensics.differing({sample: values}, [sample], x, point))
    point[0, 0, 3, 4] = 0.25
    due = {name: value[0] for name, value in vars(Shapes.of((point - x).numpy())).items() if name != "total"}
    assert not list(forensics.differing({sample: due}, [sample], x, point))
    capsys.readouterr()


def test_where_nothing_is_kept_the_results_say_why(tmp_path: Path) -> None:
    reasons: list[tuple[list[str], str]] = [
        (["evidence=none", "attack.steps=3"], "evidence=none keeps no adversarial"),
        (["attack=invert", "attack.mode=universal"], "chosen after the last of them"),
        (["attack=none"], "there is no attack"),
    ]
    for number, (options, reason) in enumerate(reasons):
        section: dict[str, Any] = made(tmp_path / str(number), *options).results()["perturbation"]
        assert section["n"] == 0
        assert reason in section["reason"]
        assert set(section) == {"n", "reason"}


def test_a_confined_run_keeps_its_region_and_its_border_ratio_is_infinite(tmp_path: Path) -> None:
    mask = torch.zeros(28, 28)
    mask[:2], mask[-2:], mask[:, :2], mask[:, -2:] = 1, 1, 1, 1
    np.save(tmp_path / "ring.npy", mask.numpy())
    found = {}
    region = ""
    for number, region in enumerate(("border:2", f"mask:{tmp_path / 'ring.npy'}")):
        confined = made(tmp_path / str(number), "attack.steps=10", "threat.eps=1.0", f"threat.region='{region}'")
        delta = perturbations(confined)
        assert len(delta) > 0
        assert np.abs(delta[:, :, 2:-2, 2:-2]).max() == 0
        ratio = confined.results()["perturbation"]["border"][1]["ratio"]
        assert ratio == {"value": None, "low": None, "high": None, "infinite": True}
        assert confined.results()["threat"]["region"] == region
        assert run(["verify", str(confined.path)]) == 0
        found[region] = confined
    assert len({confined.run["key"] for confined in found.values()}) == 2
    masked = found[region]
    np.save(tmp_path / "ring.npy", 1 - mask.numpy())
    assert "region" in masked.run["digests"]
    assert (
        run([*SMALL, "attack.steps=10", "threat.eps=1.0", f"threat.region='{region}'", f"runs.dir={tmp_path / '1'}"])
        == 2
    )
    assert run(["verify", str(masked.path)]) == 2
