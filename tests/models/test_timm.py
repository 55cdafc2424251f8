"""timm's names: weights from the caches, networks that are timm's own, preprocessing that is timm's evaluation."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from timm.data.transforms_factory import create_transform

from robusteval.datasets.pictures import decode
from robusteval.errors import UserError
from robusteval.models import hub
from robusteval.models import timm as source
from robusteval.models.timm import Timm

NAME, REPOSITORY = "test_resnet.r160_in1k", "models--timm--test_resnet.r160_in1k"


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches of torch and Hugging Face, and no way out."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    return tmp_path


def random_network(name: str = NAME, classes: int = 1000) -> torch.nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=classes).eval()
    for value in network.buffers():
        if value.is_floating_point():
            value.uniform_(0.5, 1.0)
    return network


def put_into_hugging_faces_cache(folder, network) -> None:
    repository = folder / "hf" / REPOSITORY
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abcd")
    (repository / "snapshots" / "0123abcd").mkdir(parents=True)
    save_file(network.state_dict(), repository / "snapshots" / "0123abcd" / "model.safetensors")


def test_the_network_is_timms_own(caches):
    network = random_network()
    put_into_hugging_faces_cache(caches, network)
    options = Timm(name=NAME)
    assert options.missing() is None
    classifier = options.load()
    config = source.config_of(NAME)
    mean, sd = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    images = torch.rand(2, *config["input_size"])
    with torch.no_grad():
        torch.testing.assert_close(classifier.module(images), network((images - mean) / sd))
    assert classifier.input_size == config["input_size"]
    assert (classifier.classes, classifier.name, classifier.source) == (1000, NAME, "timm r160_in1k")
    assert classifier.class_names is not None
    assert classifier.class_names[0] == "tench, Tinca tinca"


def test_torchs_cache_and_a_file_serve_too(caches):
    network = random_network()
    folder = caches / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "timm--test_resnet.r160_in1k.safetensors")
    cached = Timm(name=NAME).load()
    torch.save({"model": network.state_dict()}, caches / "own.pt")
    own = Timm(name="test_resnet", weights=str(caches / "own.pt")).load()
    assert cached.digest == own.digest
    assert own.source == "timm own.pt"


@pytest.mark.parametrize("size", [(400, 300), (220, 331)])
@pytest.mark.parametrize(
    "name",
    [
        "resnet50.a1_in1k",
        "vit_base_patch16_224",
        "convnext_base.fb_in22k_ft_in1k_384",
        "dm_nfnet_f0",
        "resnet18.tv_in1k",
    ],
)
def test_preprocessing_is_timms_evaluation(tmp_path, name, size):
    file = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(file)
    config = source.config_of(name)
    keys = ("input_size", "interpolation", "crop_pct", "crop_mode")
    transform: Any = create_transform(**{key: config[key] for key in keys}, mean=(0, 0, 0), std=(1, 1, 1))
    theirs = transform(Image.open(file))
    ours = torch.from_numpy(decode(file, source.preprocessing_of(config, name))).float() / 255
    torch.testing.assert_close(ours, theirs)


def test_pictures_that_timm_pads_are_refused():
    config = {**source.config_of(NAME), "crop_mode": "border"}
    with pytest.raises(UserError, match="crop_mode=border"):
        source.preprocessing_of(config, NAME)


def test_missing_says_what_where_and_what_to_do(caches):
    sentence = str(Timm(name=NAME).missing())
    for part in (NAME, str(caches / "hf"), str(caches / "torch"), "model.weights=", "HF_HUB_OFFLINE"):
        assert part in sentence
    assert "own.pt" in str(Timm(name=NAME, weights="own.pt").missing())


def test_no_network(caches, monkeypatch):
    with pytest.raises(UserError, match=r"could not download https://huggingface\.co/timm/test_resnet\.r160_in1k"):
        Timm(name=NAME).load()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        Timm(name=NAME).load()


def test_a_download_goes_where_it_is_looked_for(caches, monkeypatch):
    def download(url, path):
        assert url == "https://huggingface.co/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
        path.parent.mkdir(parents=True)
        save_file(random_network().state_dict(), path)
        return path

    monkeypatch.setattr(hub, "download", download)
    first = Timm(name=NAME).load()
    assert Timm(name=NAME).missing() is None
    monkeypatch.setattr(hub, "download", None)
    assert Timm(name=NAME).load().digest == first.digest


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnt50", r"model\.name=resnt50 is not a name of timm; did you mean 'resnet50'"),
        ("resnet50.a1_in2k", r"no weights 'a1_in2k' for resnet50; did you mean 'a1_in1k'"),
        ("vit_base_patch16_224.dino", "only extracts features"),
        ("???", r"needs model\.name"),
        ("../etc/passwd", "is not a name of timm"),
        ("hf-hub:someone/something", "is not a name of timm"),
    ],
)
def test_names_that_do_not_serve(caches, name, says):
    with pytest.raises(UserError, match=says):
        Timm(name=name).missing()


def test_weights_of_another_network(caches):
    save_file({"a": torch.zeros(1)}, caches / "w.safetensors")
    with pytest.raises(UserError, match=r"w\.safetensors does not fit test_resnet.*model=checkpoint"):
        Timm(name=NAME, weights=str(caches / "w.safetensors")).load()
    save_file(random_network(classes=7).state_dict(), caches / "seven.safetensors")
    with pytest.raises(UserError, match=r"seven\.safetensors does not fit"):
        Timm(name=NAME, weights=str(caches / "seven.safetensors")).load()


def test_the_weights_are_held_once(caches):
    put_into_hugging_faces_cache(caches, random_network())
    network = Timm(name=NAME).load().module.get_submodule("network")
    assert not network.pretrained_cfg.get("state_dict")  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
