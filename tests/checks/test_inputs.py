"""Checks of what goes in, each on evidence made for it: what must be flagged, and what must not."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from robusteval.checks import inputs
from robusteval.classifier import Normalised
from robusteval.engine import probe, probe_input
from robusteval.engine.passes import Passes


def samples(labels: np.ndarray, said: np.ndarray) -> pa.Table:
    return pa.table({"label": labels, "clean_prediction": said, "robust": labels == said})


def answers(n: int, classes: int, right: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return labels, sorted as many datasets are, and predictions of which a share is right."""
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, classes, n))
    return labels, np.where(rng.random(n) < right, labels, rng.integers(0, classes, n))


@pytest.mark.parametrize("classes", [3, 10, 100])
@pytest.mark.parametrize("right", [0.7, 1.0])
def test_permuted_classes_are_found_and_honest_ones_are_not(classes: int, right: float) -> None:
    labels, said = answers(20 * classes, classes, right)
    assert inputs.class_order(samples(labels, said), classes)["verdict"] == "pass"
    order = np.roll(np.arange(classes), 1)
    found = inputs.class_order(samples(labels, order[said]), classes)
    assert found["verdict"] == "fail"
    assert found["advice"]


def test_two_swapped_classes_of_ten_are_found() -> None:
    labels, said = answers(500, 10, 0.98)
    order = np.array([0, 1, 3, 2, 4, 5, 6, 7, 8, 9])
    assert inputs.class_order(samples(labels, order[said]), 10)["verdict"] == "fail"


@pytest.mark.parametrize("seed", range(20))
def test_a_network_that_knows_nothing_is_not_said_to_permute(seed: int) -> None:
    """Neither one that guesses, nor one that says the same of everything, with classes even or not."""
    rng = np.random.default_rng(seed)
    even, uneven = rng.integers(0, 10, 200), np.where(rng.random(200) < 0.8, 4, rng.integers(0, 10, 200))
    for labels in (even, uneven):
        for said in (rng.integers(0, 10, 200), np.full(200, 7)):
            assert inputs.class_order(samples(labels, said), 10)["verdict"] == "pass"


def test_too_few_images_for_so_many_classes_are_said_to_be_so() -> None:
    labels = np.arange(200)
    assert inputs.class_order(samples(labels, (labels + 1) % 1000), 1000)["verdict"] == "skipped"


COLOUR, GREY = [3, 32, 32], [1, 28, 28]


@pytest.mark.parametrize(
    ("norm", "eps", "shape", "verdict", "words"),
    [
        ("linf", 8 / 255, COLOUR, "pass", ""),
        ("linf", 0.3, GREY, "pass", ""),
        ("linf", 0.5 / 255, COLOUR, "pass", ""),
        ("linf", 8.0, COLOUR, "fail", "8/255 may be meant"),
        ("linf", 1.0, GREY, "pass", ""),
        ("linf", 0.0, COLOUR, "warn", "radius 0"),
        ("linf", 8 / 255 / 0.225, COLOUR, "warn", "8/255 in units of normalised images"),
        ("linf", 0.5, COLOUR, "warn", "beyond what is published"),
        ("linf", 0.031, COLOUR, "warn", "not quite 8/255"),
        ("l2", 0.5, COLOUR, "pass", ""),
        ("l2", 8 / 255, COLOUR, "warn", "usual Linf radius"),
        ("l2", 60.0, COLOUR, "fail", "larger than the whole range"),
        ("l2", 2.0, GREY, "pass", ""),
        ("l1", 12.0, COLOUR, "pass", ""),
        ("linf", [0.01, 0.031, 0.5], COLOUR, "pass", ""),
        ("linf", [1.0, 4.0], COLOUR, "fail", "larger than the whole range"),
    ],
)
def test_a_radius_that_cannot_be_meant_is_flagged(
    norm: str, eps: Any, shape: list[int], verdict: str, words: str
) -> None:
    found = inputs.radius({"norm": norm, "eps": eps}, shape)
    assert found["verdict"] == verdict
    assert words in found["summary"]


@pytest.mark.parametrize(
    ("right", "n", "verdict"), [(961, 1000, "pass"), (30, 32, "pass"), (900, 1000, "warn"), (100, 1000, "fail")]
)
def test_an_accuracy_below_the_known_one_is_flagged_beyond_chance(right: int, n: int, verdict: str) -> None:
    known = {"accuracy": 0.961, "dataset": "mnist_5k", "source": "card"}
    run = {"model": {"reference": known}, "dataset": {"name": "mnist_5k"}}
    table = samples(np.zeros(n, dtype=int), (np.arange(n) >= right).astype(int))
    assert [check["verdict"] for check in inputs.reference(run, table)] == [verdict]
    assert inputs.reference({**run, "dataset": {"name": "arrays"}}, table) == []
    assert inputs.reference({**run, "model": {}}, table) == []


@pytest.mark.parametrize(("robust", "n", "verdict"), [(0, 32, "pass"), (50, 100, "pass"), (16, 32, "warn")])
def test_too_few_images_are_said_by_the_width_of_the_interval(robust: int, n: int, verdict: str) -> None:
    assert inputs.subset(pa.table({"robust": np.arange(n) < robust}))["verdict"] == verdict


class Trained(nn.Module):
    """Tells the brightest of three channels, but only of images of mean 0 and spread 1 or so, as nets with ReLU do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = x.mean((2, 3))
        dark = (pooled.amin(1, keepdim=True) + 1.0).clamp(min=0)
        return pooled.roll(1, 1) * dark.clamp(max=1) * 3 + pooled * (1 - dark.clamp(max=1)) * 3


MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = 0.12 + 0.1 * torch.rand(32, 3, 8, 8, generator=generator)
    labels = torch.arange(32) % 3
    images[torch.arange(32), labels] += 0.2
    return images, labels


@pytest.mark.parametrize(
    ("module", "verdict"),
    [
        (Normalised(Trained(), MEAN, SD), "pass"),
        (Trained(), "fail"),
        (nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3, 3)), "pass"),
    ],
)
def test_a_missing_normalisation_is_found(module: nn.Module, verdict: str, pictures: Any) -> None:
    images, labels = pictures
    passes = Passes(module=module, batch=32)
    with torch.no_grad():
        seen = probe_input.look(passes, images, labels, passes.logits(images))
    assert inputs.normalisation(seen)["verdict"] == verdict


class Bright(nn.Module):
    """As ``Trained`` for images that were not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Normalised(Trained(), MEAN, SD)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def test_a_normalisation_that_is_there_twice_is_found(pictures: Any) -> None:
    images, labels = pictures
    passes = Passes(module=Normalised(Bright(), (0.0, 0.0, 0.0), (0.05, 0.05, 0.05)), batch=32)
    with torch.no_grad():
        seen = probe_input.look(passes, images, labels, passes.logits(images))
    found = inputs.normalisation(seen)
    right = int((passes.logits(images).argmax(1) == labels).sum())
    assert right < 16, "otherwise nothing is to be found"
    assert found["verdict"] == "fail"
    assert "without model.mean" in found["summary"]


def test_a_network_that_says_the_same_of_everything_is_not_said_to_lack_a_normalisation() -> None:
    seen = {
        "images": 32,
        "right": 0,
        "labels": 2,
        "normalisations": {"in 0 to 255": {"gained": 30, "lost": 0, "classes": 1}},
    }
    assert inputs.normalisation(seen)["verdict"] == "pass"


def test_images_divided_twice_are_black() -> None:
    assert inputs.brightness({"low": 0.0, "high": 1 / 255})["verdict"] == "fail"
    assert inputs.brightness({"low": 0.0, "high": 0.2})["verdict"] == "pass"


class Faint(nn.Module):
    """Answers the same but for its last bits, as networks without training may: its gradient is right all the same."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([1.0, 2.0, 3.0]) + self.scale * x.mean((2, 3))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-7])
def test_a_gradient_too_small_for_float32_is_not_called_misleading(scale: float, pictures: Any) -> None:
    images, labels = pictures
    facts = probe.look(Passes(module=Faint(scale), batch=32), images, labels, gradients=True)
    assert facts["misleading_gradients"] == 0
