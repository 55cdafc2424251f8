"""Adversarials of other runs: tried image by image by their ids, verified, refused where they are of other images."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from robusteval.cli import run
from robusteval.evidence import images
from robusteval.evidence.folder import RunFolder

IMAGES = ["dataset.n=48", "engine.chunk=32", "threat.eps=0.15", "logger=none"]


def folder_of(runs: Path) -> Path:
    (found,) = runs.glob("*/run.json")
    return found.parent


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return runs on two networks, the weak one's of one step."""
    found = {}
    for name, *attack in (("mnist_cnn", "attack.steps=20"), ("mnist_cnn_at", "attack.steps=1", "attack.init=zero")):
        runs = tmp_path_factory.mktemp(name)
        assert run([f"model={name}", "attack=pgd", *attack, *IMAGES, f"runs.dir={runs}"]) == 0
        found[name] = folder_of(runs)
    return found


def results_of(runs: Path, *overrides: str) -> dict[str, Any]:
    assert run(["attack=transfer", *IMAGES, f"runs.dir={runs}", *overrides]) == 0
    return json.loads((folder_of(runs) / "results.json").read_text())


def verdict(results: dict[str, Any], name: str) -> str:
    return {check["id"]: check["verdict"] for check in results["checks"]}[name]


def test_on_its_own_network_every_saved_adversarial_breaks_its_image_again(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    own = json.loads((sources["mnist_cnn"] / "results.json").read_text())
    results = results_of(tmp_path, "model=mnist_cnn", f"attack.runs=[{sources['mnist_cnn']}]")
    assert results["robust"]["accuracy"] == own["robust"]["accuracy"]
    assert own["robust"]["attack_success"]["broken"] > 5
    folder, source = RunFolder(folder_of(tmp_path)), RunFolder(sources["mnist_cnn"])
    kept = [
        {int(i): image for _, _, path in images.every(one) for i, image in zip(*images.read(path), strict=True)}
        for one in (folder, source)
    ]
    assert kept[0].keys() == kept[1].keys()
    assert all(bool((kept[0][sample] == kept[1][sample]).all()) for sample in kept[0])
    assert run(["verify", str(folder.path)]) == 0
    assert verdict(results, "transfer") == "skipped"


def test_another_network_is_broken_by_some_and_the_order_of_chunks_is_no_matter(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    results = results_of(tmp_path, "model=mnist_cnn_at", f"attack.runs=[{sources['mnist_cnn']}]", "engine.chunk=16")
    own = json.loads((sources["mnist_cnn"] / "results.json").read_text())
    assert results["robust"]["accuracy"]["correct"] > own["robust"]["accuracy"]["correct"]
    assert "mnist_cnn" in json.loads((folder_of(tmp_path) / "run.json").read_text())["plan"]["origins"][0]["model"]


def test_transfer_that_beats_the_white_box_is_flagged(sources: dict[str, Path], tmp_path: Path) -> None:
    """The white box here is one step from the image, in a radius at which noise does something."""
    runs = f"attack.runs=[{sources['mnist_cnn_at']},{sources['mnist_cnn']}]"
    results = results_of(tmp_path, "model=mnist_cnn_at", runs)
    stages = {row["stage"]: row["broken"] for row in results["robust"]["by_stage"]}
    assert stages["transfer-1"] > 0
    assert verdict(results, "transfer") == ("warn" if stages["transfer-2"] else "pass")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("nothing named", "needs attack.runs"),
        ("no run", "is no run"),
        ("other images", "run on other images"),
        ("twice", "names a run twice"),
        ("unfinished", "is not complete"),
        ("damaged", "does not match the checksum"),
        ("no adversarials", "keeps no adversarials"),
    ],
)
def test_what_cannot_serve_is_refused_in_a_sentence(
    change: str, words: str, sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(sources["mnist_cnn"], tmp_path / change.replace(" ", "_")))
    named, more = str(copy), []
    match change:
        case "nothing named":
            named = ""
        case "no run":
            named = str(tmp_path / "nowhere")
        case "other images":
            more = ["dataset.n=40"]
        case "twice":
            named = f"{copy},{copy}"
        case "unfinished":
            (copy / "results.json").unlink()
        case "damaged":
            victim = next(iter(copy.glob("adversarials/*/*")))
            victim.write_bytes(victim.read_bytes()[:-1] + b"x")
        case "no adversarials":
            shutil.rmtree(copy / "adversarials")
    command = ["model=mnist_cnn", "attack=transfer", f"attack.runs=[{named}]", *IMAGES, *more]
    assert run([*command, f"runs.dir={tmp_path / 'out'}"]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.glob("out/*/run.json"))
