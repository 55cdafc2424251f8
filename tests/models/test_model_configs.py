"""conf/model: every file builds, and its keys and values are those of the dataclass behind it."""

import dataclasses
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import robusteval
from robusteval import registry
from robusteval.config import construct
from robusteval.errors import UserError

FILES = sorted(Path(robusteval.__file__).parent.joinpath("conf", "model").glob("*.yaml"))
READY = {"resnet18", "resnet50", "vit_b_16", "convnext_base", "densenet121", "vgg16_bn", "efficientnet_lite0"}

FOLLOWING = {"robustbench": {"name": "Wang2023Better_WRN-28-10", "dataset": "cifar10", "threat": "linf"}}


def options(file: Path) -> dict:
    loaded = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items() if key != "defaults"}


def test_the_names_that_are_promised_are_there():
    assert {file.stem for file in FILES} == READY | {
        *("torchvision", "timm", "robustbench", "python", "checkpoint", "mnist_cnn", "mnist_cnn_at"),
        *("mnist_padding", "cifar10_resnet20"),
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_keys_and_values_are_the_dataclasss(file):
    written = options(file)
    kind = registry.lookup(registry.MODELS, "model.source", written["source"])
    fields = {field.name: field for field in dataclasses.fields(kind)}
    assert list(written)[:2] == ["source", "name"]
    assert set(written) == set(fields)
    for name, value in written.items():
        default = fields[name].default
        # What the user must name, or what follows the dataset and the threat of the run.
        named = name == "name" and file.stem == "cifar10_resnet20"  # the second network of its source
        assert value == default or named or (default is dataclasses.MISSING and (name == "name" or "${" in value))
    assert file.read_text().startswith("# ")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_builds_or_asks_for_a_name(file):
    written = options(file)
    kind = registry.lookup(registry.MODELS, "model.source", written["source"])
    if written["name"] == "???":
        with pytest.raises(UserError, match=r"needs model\.name=NAME"):
            construct(kind, written, "model")
        written |= FOLLOWING.get(file.stem, {"name": "resnet18"})
    assert construct(kind, written, "model").source == written["source"]


def test_numbers_and_lists_arrive_as_the_dataclass_wants_them():
    kind = registry.lookup(registry.MODELS, "model.source", "python")
    given = {"source": "python", "name": "x", "mean": [0.5, "1/2", 0.5], "sd": [1, 1, 1], "input_size": [3, 32, 32]}
    built = construct(kind, given, "model")
    assert (built.mean, built.sd, built.input_size) == ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (3, 32, 32))


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"mean": [0.5]}, "model.mean"),
        ({"input_size": [3, 32]}, "model.input_size"),
        ({"input_size": [3, 0, 32]}, "model.input_size"),
        ({"classes": 1}, "model.classes"),
        ({"interpolation": "cubic"}, "model.interpolation"),
        ({"wieghts": "x"}, "model.wieghts"),
    ],
)
def test_wrong_values_are_named(given, key):
    kind = registry.lookup(registry.MODELS, "model.source", "python")
    with pytest.raises(UserError, match=key):
        construct(kind, {"source": "python", "name": "x", **given}, "model")
