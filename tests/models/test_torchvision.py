"""Torchvision's names: our networks equal torchvision's own, our preprocessing its transforms; nothing is guessed."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from robusteval.datasets.pictures import decode
from robusteval.errors import UserError
from robusteval.models import torchvision as source
from robusteval.models.assemble import last_layer
from robusteval.models.torchvision import Torchvision


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder where torch caches weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def offline(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


def random_state(name: str, entry) -> dict[str, torch.Tensor]:
    """Return random weights as torchvision's file of that name has them, old names included."""
    torch.manual_seed(0)
    options = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
    network = models.get_model(name, weights=None, num_classes=len(entry.meta["categories"]), **options)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0  # so that one pass sets the statistics, and logits depend on the image
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 96, 96))
    state = network.state_dict()
    if name.startswith("densenet"):
        # The published file is older than the counter of BatchNorm, and than the rule against dots in names.
        kept = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
        return {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value for key, value in kept.items()}
    return state


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "densenet121", "squeezenet1_1"])
def test_the_network_is_torchvisions_own(hub, name):
    entry = models.get_model_weights(name)["DEFAULT"]
    torch.save(random_state(name, entry), hub / entry.url.rpartition("/")[2])
    options = Torchvision(name=name)
    assert options.missing() is None
    classifier = options.load()
    theirs = models.get_model(name, weights=entry).eval()
    transform = entry.transforms()
    images = torch.rand(2, 3, 224, 224)
    mean, sd = torch.tensor(transform.mean).view(3, 1, 1), torch.tensor(transform.std).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(classifier.module(images), theirs((images - mean) / sd), rtol=1e-4, atol=1e-5)
    assert (classifier.classes, classifier.input_size) == (1000, (3, 224, 224))
    assert classifier.class_names is not None
    assert classifier.class_names[1] == "goldfish, Carassius auratus"
    assert (classifier.name, classifier.source) == (name, f"torchvision {entry.name}")


@pytest.mark.parametrize("size", [(320, 240), (200, 301)])
@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "convnext_base", "efficientnet_b0"])
def test_preprocessing_is_that_of_the_weights(tmp_path, name, size):
    entry = models.get_model_weights(name)["DEFAULT"]
    file = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(file)
    transform = entry.transforms()
    transform.mean, transform.std = [0.0] * 3, [1.0] * 3
    theirs = transform(Image.open(file))
    ours = torch.from_numpy(decode(file, source.preprocessing_of(entry))).float() / 255
    torch.testing.assert_close(ours, theirs)


def test_every_classifier_has_weights_and_a_last_layer():
    assert len(source.names()) >= 80
    for name in source.names():
        assert source.weights_of(name)
        assert source.side_of(name) >= 224


@pytest.mark.parametrize("name", ["alexnet", "swin_t", "mnasnet0_5", "shufflenet_v2_x0_5", "inception_v3", "maxvit_t"])
def test_the_last_layer_gives_the_classes(name):
    with torch.device("meta"):
        network = source.build(name, 7, 224)
    layer = last_layer(network)
    assert network.get_parameter(f"{layer}.weight").shape[0] == 7


def test_weights_by_name_and_by_file(hub, tmp_path):
    entries = models.get_model_weights("mobilenet_v3_large")
    state = random_state("mobilenet_v3_large", entries["IMAGENET1K_V1"])
    first = hub / entries["IMAGENET1K_V1"].url.rpartition("/")[2]
    torch.save(state, first)
    assert "IMAGENET1K_V2" in str(Torchvision(name="mobilenet_v3_large").missing())
    named = Torchvision(name="mobilenet_v3_large", weights="IMAGENET1K_V1").load()
    assert (named.preprocessing.resize, named.source) == (256, "torchvision IMAGENET1K_V1")
    torch.save({"state_dict": state}, tmp_path / "own.pth")
    own = Torchvision(name="mobilenet_v3_large", weights=str(tmp_path / "own.pth")).load()
    assert own.digest == named.digest
    assert own.source == "torchvision own.pth"


def test_missing_says_what_where_and_what_to_do(hub, offline):
    sentence = str(Torchvision(name="resnet50").missing())
    for part in ("resnet50", "IMAGENET1K_V2", str(hub / "resnet50-11ad3fa6.pth"), "https://", "model.weights="):
        assert part in sentence
    assert not list(hub.iterdir())


def test_an_unreachable_host_is_a_sentence(hub, offline):
    with pytest.raises(UserError, match=r"could not download https://download\.pytorch\.org/models/resnet18-f37072fd"):
        Torchvision(name="resnet18").load()


def test_a_download_is_held_to_the_digest_in_its_name(hub, monkeypatch):
    calls = []

    def download(url, path, **digest):
        calls.append((url, path, digest))
        torch.save(random_state("squeezenet1_1", models.SqueezeNet1_1_Weights.DEFAULT), path)
        return path

    monkeypatch.setattr(source, "download", download)
    Torchvision(name="squeezenet1_1").load()
    url = models.SqueezeNet1_1_Weights.DEFAULT.url
    assert calls == [(url, hub / "squeezenet1_1-b8a52dc0.pth", {"sha256_prefix": "b8a52dc0"})]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "resnet5O"}, r"model\.name=resnet5O.*did you mean 'resnet50'"),
        ({"name": "fcn_resnet50"}, r"model\.name=fcn_resnet50 is not a classifier"),
        ({"name": "???"}, r"needs model\.name"),
        ({"name": "vgg16", "weights": "IMAGENET1K_FEATURES"}, "neither a file nor one of torchvision's weights"),
        ({"name": "resnet18", "weights": "IMAGENET1K_V7"}, r"model\.weights=IMAGENET1K_V7.*DEFAULT, IMAGENET1K_V1"),
    ],
)
def test_names_that_are_not_known(hub, options, says):
    with pytest.raises(UserError, match=says):
        Torchvision(**options).load()


def test_the_wrong_weights_in_the_cache(hub):
    torch.save({"fc.weight": torch.zeros(1000, 512)}, hub / "resnet18-f37072fd.pth")
    with pytest.raises(UserError, match=r"resnet18-f37072fd\.pth does not fit the network: it lacks 121 of 122"):
        Torchvision(name="resnet18").load()
