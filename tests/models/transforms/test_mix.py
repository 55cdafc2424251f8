"""The mixture of two models, against its formula, and which models do not mix."""

import dataclasses

import pytest
import torch
from torch import nn

from robusteval.classifier import Preprocessing
from robusteval.config import named_model
from robusteval.errors import UserError
from robusteval.models.transforms.mix import Mix


def linear(seed: int, classes: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, classes))


def test_the_formula(classifier, material):
    one, two = classifier(linear(0), "one", 4), classifier(linear(1), "two", 4)
    asked = []

    def model(name, options):
        asked.append((name, options))
        return two

    given = dataclasses.replace(material((1, 3, 3)), model=model)
    mix = Mix(model="timm", options={"name": "two"}, weight=0.3, scale=2.0, other_scale=0.5)
    module, facts = mix.apply(one, given)
    images = torch.rand(6, 1, 3, 3)
    due = (0.7 * (2 * one.module(images)).softmax(1) + 0.3 * (0.5 * two.module(images)).softmax(1)).log()
    torch.testing.assert_close(module(images), due)
    assert asked == [("timm", {"name": "two"})]
    assert (facts["other"], facts["other_digest"]) == ("two", "0")
    assert mix.label() == "mix(0.7 : 0.3 two, scales 2 and 0.5)"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": 5}, r"classes \(4 and 5\)"),
        ({"input_size": (1, 4, 4)}, "input size"),
        ({"preprocessing": Preprocessing(resize=8)}, "preprocessing"),
        ({"class_names": ("d", "c", "b", "a")}, "class names;"),
    ],
)
def test_other_images_or_classes_do_not_mix(change, words, classifier, material):
    one = dataclasses.replace(classifier(linear(0), "one", 4), input_size=(1, 3, 3), class_names=tuple("abcd"))
    two = dataclasses.replace(one, name="two", **change)
    given = dataclasses.replace(material((1, 3, 3)), model=lambda name, options: two)
    with pytest.raises(UserError, match=words):
        Mix(model="two").apply(one, given)


def test_the_other_model_is_named_as_on_the_command_line():
    found = named_model("mnist_cnn_at", {}, "transform.mix")
    assert (found.source, found.name) == ("bundled", "mnist_cnn_at")
    found = named_model("timm", {"name": "convnext_tiny"}, "transform.mix")
    assert found.name == "convnext_tiny"
    with pytest.raises(UserError, match=r"transform\.mix\.model=mnist_cn: no model named 'mnist_cn'; did you mean"):
        named_model("mnist_cn", {}, "transform.mix")
    with pytest.raises(UserError, match=r"transform\.mix\.options\.nme is not an option"):
        named_model("timm", {"nme": "x"}, "transform.mix")
