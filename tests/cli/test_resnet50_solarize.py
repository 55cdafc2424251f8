"""The literal ``python -m robusteval model=resnet50 attack=solarize``, without its files and with them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.imagenet_info import ImageNetInfo
from torchvision import models

LITERAL = ("model=resnet50", "attack=solarize")


def test_without_data_or_weights_it_says_what_is_missing(timed: Callable, tmp_path: Path) -> None:
    home, root = tmp_path / "torch", tmp_path / "imagenet"
    home.mkdir()
    root.mkdir()
    given, took = timed(*LITERAL, TORCH_HOME=str(home), IMAGENET_ROOT=str(root))
    assert took < 10
    assert (given.code, given.out) == (2, "")
    data, weights = given.err.splitlines()
    assert data.startswith("robusteval: ")
    for said in (str(root), "IMAGENET_ROOT", "dataset.root="):  # where it looked, and what to do
        assert said in data
    for said in ("resnet50", str(home), "resnet50-11ad3fa6.pth", "model.weights="):
        assert said in weights
    assert not (Path.cwd() / "runs").exists()
    assert not any(home.iterdir())


def test_without_a_root_the_variable_is_named(answer: Callable, tmp_path: Path) -> None:
    given = answer(*LITERAL)
    assert given.code == 2
    assert "IMAGENET_ROOT" in given.err
    assert str(tmp_path / "torch_home") in given.err


@pytest.mark.slow
def test_with_weights_and_pictures_it_runs(process: Callable, tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(models.resnet50().state_dict(), folder / "resnet50-11ad3fa6.pth")
    draw = np.random.default_rng(0)
    for number, wnid in enumerate(ImageNetInfo().label_names()[:4], 1):
        place = tmp_path / "imagenet" / "val" / wnid
        place.mkdir(parents=True)
        pixels = draw.integers(0, 256, (240, 260, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"ILSVRC2012_val_{number:08d}.JPEG")
    # Random weights are wrong on nearly every picture; what is under test is the way from the command to the folder.
    given = process(
        *LITERAL,
        "attack.iterations=1",
        "engine.slots=16",
        "checks=off",  # many passes of a large network, on four pictures; as many more for a faster form of it
        "engine.oracle=given",
        "logger=none",
        TORCH_HOME=str(tmp_path / "torch"),
        IMAGENET_ROOT=str(tmp_path / "imagenet"),
    )
    assert given.code == 0, given.err
    run = Path(given.out.splitlines()[-1])
    results = json.loads((run / "results.json").read_text())
    assert (results["dataset"]["name"], results["dataset"]["n"]) == ("imagenet", 4)
    assert results["threat"]["norm"] == "unbounded"
    assert results["model"]["name"] == "resnet50"
    assert run.parent == Path("runs")
