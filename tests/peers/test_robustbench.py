"""RobustBench as the registry has it: networks of its zoo with random weights, from model_dir to a verified run."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robusteval import cli
from robusteval.datasets.names import imagenet_wnids
from robusteval.models import zoo
from robusteval.models.robustbench import RobustBench
from robusteval.models.weights import digest_of
from robusteval.models.zoo_files import places
from robusteval.published import robustbench

pytestmark = pytest.mark.peers

NETWORKS = [
    ("cifar10", "Linf", "Sehwag2021Proxy_R18"),
    ("cifar100", "Linf", "Rice2020Overfitting"),
    ("imagenet", "Linf", "Salman2020Do_R18"),
]
FEW = ["attack=fgsm", "checks=off", "engine.slots=16", "logger=none", "evidence=all"]
# How the zoo's published files of each network differ from the network's own names.
PUBLISHED = {
    "Sehwag2021Proxy_R18": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    "Rice2020Overfitting": lambda state: {name: value for name, value in state.items() if name not in ("mu", "sigma")},
    "Debenedetti2022Light_XCiT-S12": lambda state: {
        "model": {n.removeprefix("model."): value for n, value in state.items() if n.startswith("model.")}
    },
    "Salman2020Do_R18": lambda state: {
        "state_dict": {n.replace("model.", "module."): v for n, v in state.items() if n.startswith("model.")}
    },
}


def test_as_installed_it_cannot_be_imported_and_its_networks_can() -> None:
    """The defect that the adapter is for; where it is mended one day, this says so."""
    code = "import robustbench"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert "No module named 'autoattack'" in done.stderr or "No module named 'pkg_resources'" in done.stderr
    assert zoo.trouble() is None
    assert "robustbench" not in sys.modules


def test_the_installed_zoo_has_the_names_that_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for dataset, threat in robustbench.boards():
        published = {entry.name for entry in robustbench.zoo(dataset, threat)}
        assert published == set(zoo.names(dataset, threat))
    assert cli.run(["list", "models", "robustbench"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{entry.name} " in listed for entry in robustbench.zoo())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Random images: arrays for CIFAR, two pictures in ImageNet's layout."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(4))
    for number, wnid in enumerate(imagenet_wnids()[:2], 1):
        path = folder / "val" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG"
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (260, 300, 3), dtype=np.uint8)).save(path)
    arrays = ["dataset=arrays", f"dataset.path={folder / 'images.npz'}"]
    pictures = ["dataset=imagenet", f"dataset.root={folder}"]
    return {
        **{name: [*arrays, f"model.dataset={name}"] for name in ("cifar10", "cifar100")},
        "imagenet": pictures,
    }


def lay(folder: Path, dataset: str, threat: str, name: str, form: Callable[[dict], dict]) -> torch.nn.Module:
    """Make a network of the zoo with random weights and lay them where RobustBench would."""
    recipe = zoo.recipe(dataset, threat, name)
    torch.manual_seed(0)
    network = zoo.build(recipe).eval()
    path = places(recipe, str(folder))[0].looked[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(form(dict(network.state_dict())), path)
    return network


@pytest.mark.parametrize(("dataset", "threat", "name"), NETWORKS, ids=lambda part: part)
@pytest.mark.filterwarnings("ignore")
def test_from_model_dir_to_a_run(
    tmp_path: Path, data: dict[str, list[str]], capsys: pytest.CaptureFixture[str], dataset: str, threat: str, name: str
) -> None:
    network = lay(tmp_path / "zoo", dataset, threat, name, PUBLISHED[name])
    command = ["model=robustbench", f"model.name={name}", f"model.dir={tmp_path / 'zoo'}", *data[dataset], *FEW]
    assert cli.run([*command, f"runs.dir={tmp_path}"]) == 0, capsys.readouterr().err
    run = Path(capsys.readouterr().out.splitlines()[-1])
    results = json.loads((run / "results.json").read_text())
    assert results["model"]["digest"] == digest_of(network)
    assert results["model"]["source"] == f"robustbench {dataset}/{threat}"
    assert results["threat"]["eps"] == (4 / 255 if dataset == "imagenet" else 8 / 255)
    assert results["robust"]["accuracy"]["n"] == (2 if dataset == "imagenet" else 4)
    assert cli.run(["leaderboard", str(run), "--against", "robustbench", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["boards"][0]["rows"]
    (ours,) = (row for row in rows if row["origin"] == "ours")
    assert (ours["model"], ours["rank"]) == (name, None)
    assert "fgsm, not AutoAttack: an upper bound" in ours["differences"]


@pytest.mark.filterwarnings("ignore")
def test_a_network_that_robustbench_registers_with_timm(tmp_path: Path) -> None:
    name = "Debenedetti2022Light_XCiT-S12"
    network = lay(tmp_path, "cifar100", "Linf", name, PUBLISHED[name])
    loaded = RobustBench(name=name, dataset="cifar100", threat="linf", dir=str(tmp_path)).load()
    assert loaded.digest == digest_of(network)
    assert loaded.classes == 100


def test_a_page_of_google_drive_in_place_of_the_weights_is_told(
    tmp_path: Path, data: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cifar10" / "Linf" / "Sehwag2021Proxy_R18.pt"
    path.parent.mkdir(parents=True)
    path.write_text("<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>")
    command = ["model=robustbench", "model.name=Sehwag2021Proxy_R18", f"model.dir={tmp_path}", *data["cifar10"], *FEW]
    assert cli.run([*command, f"runs.dir={tmp_path}"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"robusteval: {path} should hold weights, but is an HTML page (of a login, an error or a download quota), not "
        "the file itself; get the file again"
    ]
