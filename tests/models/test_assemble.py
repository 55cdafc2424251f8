"""What is known about a network's input, checked against the network itself."""

import pytest
import torch
from torch import nn

from robusteval.errors import UserError
from robusteval.models.assemble import assemble, check_normalisation


def flat(channels: int = 3, classes: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, classes))


class Answers(nn.Module):
    """Answers with whatever it was given."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images):
        return self.answer(images)


def test_the_number_of_classes_is_that_of_the_answer():
    class Auxiliary(nn.Module):
        """Its last layer is not what it answers with."""

        def __init__(self):
            super().__init__()
            self.head, self.auxiliary = flat(classes=4), nn.Linear(2, 9)

        def forward(self, images):
            return self.head(images)

    assert assemble(Auxiliary(), name="a", source="s", input_size=(3, 8, 8)).classes == 4
    assert assemble(flat(classes=6), name="a", source="s").classes == 6
    assert assemble(Answers(lambda x: x.flatten(1)), name="a", source="s", classes=7).classes == 7


def test_normalisation_is_inside():
    torch.manual_seed(0)
    network, mean, sd = flat().eval(), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    images = torch.rand(2, 3, 8, 8)
    by_hand = torch.stack([(images[:, c] - mean[c]) / sd[c] for c in range(3)], 1)
    classifier = assemble(network, name="a", source="s", mean=mean, sd=sd)
    torch.testing.assert_close(classifier.module(images), network(by_hand))


def test_eval_mode():
    network = nn.Sequential(flat(), nn.Dropout(0.9)).train()
    assert not any(part.training for part in assemble(network, name="a", source="s").module.modules())


@pytest.mark.parametrize(
    ("network", "options", "says"),
    [
        (flat(), {"input_size": (1, 8, 8)}, r"does not take images of model\.input_size=\[1, 8, 8\]"),
        (flat(), {"input_size": (3, 2, 2)}, r"model\.input_size=\[3, 2, 2\]"),
        (flat(), {"input_size": (3, 8, 8), "classes": 5}, r"model\.classes=5.*4 logits"),
        (flat(), {"class_names": ("a", "b")}, "2 class names came for a network of 4"),
        (Answers(lambda x: x), {}, r"model\.classes"),
        (Answers(lambda x: (x, x)), {"input_size": (3, 8, 8)}, "answers with a tuple"),
        (Answers(lambda x: x), {"input_size": (3, 8, 8)}, r"shape \[2, 3, 8, 8\]"),
        (Answers(lambda x: x.sum(0)), {"input_size": (3, 8, 8)}, r"shape \[3, 8, 8\]"),
    ],
)
def test_what_does_not_fit_is_told(network, options, says):
    with pytest.raises(UserError, match=says):
        assemble(network, name="a", source="s", **options)


@pytest.mark.parametrize(
    ("mean", "sd", "says"),
    [
        ((0.5,), None, r"model\.mean came without model\.sd"),
        (None, (0.5,), r"model\.sd came without model\.mean"),
        ((0.5, 0.5, 0.5), (0.5,), "3 numbers and model.sd 1"),
        ((), (), "0 numbers"),
        ((0.5, 0.5), (0.5, 0.5), "2 numbers, but model.input_size 3 channels"),
        ((0.5, 0.5, 0.5), (0.5, 0.0, 0.5), "above 0"),
        ((0.5, 0.5, 0.5), (0.5, -1.0, 0.5), "above 0"),
        ((float("nan"), 0.5, 0.5), (0.5, 0.5, 0.5), r"model\.mean.*finite"),
    ],
)
def test_half_a_normalisation_is_refused(mean, sd, says):
    with pytest.raises(UserError, match=says):
        check_normalisation(mean, sd, (3, 8, 8))


def test_classes_are_counted_where_the_last_weight_is_a_product():
    for normalise in (nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm):
        network = flat(classes=6)
        normalise(network.get_submodule("3"))
        assert assemble(network, name="a", source="s").classes == 6


def test_weights_without_a_size_are_refused_unless_the_input_size_gives_them_one():
    def lazy() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(4))

    with pytest.raises(UserError, match=r"model\.input_size"):
        assemble(lazy(), name="a", source="s")
    assert assemble(lazy(), name="a", source="s", input_size=(1, 4, 4)).classes == 4


def test_weights_made_in_inference_mode_are_refused():
    with torch.inference_mode():
        network = flat()
    with pytest.raises(UserError, match="inference_mode"):
        assemble(network, name="a", source="s")
