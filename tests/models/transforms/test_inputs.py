"""Steps before the network: what they do to pixels, in which order, and what attacks see of them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from robusteval.classifier import Normalised, Prepared
from robusteval.engine import oracle
from robusteval.engine.passes import Passes
from robusteval.errors import UserError
from robusteval.models.transforms.inputs import Jpeg, Quantise, Smoothing


class Flat(nn.Module):
    """Answers with the pixels themselves."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_quantise_takes_the_nearest_of_its_levels(bits, classifier, material):
    module, facts = Quantise(bits=bits).apply(classifier(Flat()), material((1, 4, 4)))
    images = torch.rand(5, 1, 4, 4)
    levels = torch.arange(2**bits) / (2**bits - 1)
    nearest = (images.flatten()[:, None] - levels).abs().min(1).values.view(5, 16)
    assert facts["levels"] == len(levels)
    came = module(images)
    torch.testing.assert_close((came - images.flatten(1)).abs(), nearest)
    assert torch.isclose(came.flatten()[:, None], levels).any(1).all()


@pytest.mark.parametrize("step", [Quantise, Jpeg])
def test_gradients_are_zero_or_go_straight_through(step, classifier, material):
    for straight in (False, True):
        module, _ = step(straight_through=straight).apply(classifier(Flat()), material((1, 8, 8)))
        images = torch.rand(2, 1, 8, 8, requires_grad=True)
        weights = torch.rand(2, 64)
        (gradient,) = torch.autograd.grad((weights * module(images)).sum(), images)
        assert torch.equal(gradient, weights.view(2, 1, 8, 8) if straight else torch.zeros_like(images))


@pytest.mark.parametrize(("channels", "quality"), [(1, 30), (3, 75)])
def test_jpeg_is_what_pillow_makes(channels, quality, classifier, material):
    module, _ = Jpeg(quality=quality).apply(classifier(Flat()), material((channels, 16, 24)))
    smooth = nn.functional.interpolate(torch.rand(2, channels, 4, 6), size=(16, 24), mode="bilinear")
    came = (module(smooth).view(2, channels, 16, 24) * 255).round()
    for image, found in zip(smooth, came, strict=True):
        grey = (image * 255).round().byte().numpy()
        file = io.BytesIO()
        Image.fromarray(grey[0] if channels == 1 else grey.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
        due = np.asarray(Image.open(file), dtype=np.float32)
        due = due[None] if channels == 1 else due.transpose(2, 0, 1)
        assert np.array_equal(found.numpy(), due)
    assert 0.2 < float((came / 255 - smooth).abs().max() * 255) < 80


def test_jpeg_of_two_channels_is_refused(classifier, material):
    with pytest.raises(UserError, match="1 or 3 channels, and the images have 2"):
        Jpeg().apply(classifier(Flat()), material((2, 8, 8)))


def test_noise_has_its_deviation_and_is_drawn_anew(classifier, material):
    module, _ = Smoothing(sigma=0.5).apply(classifier(Flat()), material((1, 50, 50)))
    images = torch.rand(4, 1, 50, 50)
    torch.manual_seed(3)
    first, second = module(images) - images.flatten(1), module(images) - images.flatten(1)
    assert float(first.std()) == pytest.approx(0.5, rel=0.03)
    assert abs(float(first.mean())) < 0.02
    assert abs(float((first * second).mean())) < 0.01
    torch.manual_seed(3)
    assert torch.equal(module(images) - images.flatten(1), first)


def test_steps_act_on_pixels_in_the_order_of_the_list_before_the_normalisation(classifier, material):
    network = Normalised(Flat(), [0.5], [0.25])
    module, _ = Quantise(bits=1).apply(classifier(network), material((1, 8, 8)))
    module, _ = Jpeg(quality=20).apply(classifier(module), material((1, 8, 8)))
    images = torch.rand(2, 1, 8, 8)
    first, _ = Jpeg(quality=20).apply(classifier(Flat()), material((1, 8, 8)))
    assert torch.equal(module(images), (first(images.round()) - 0.5) / 0.25)
    assert isinstance(module, Prepared)
    assert [type(step).__name__ for step in module.steps] == ["Quantised", "Compressed"]


@pytest.mark.parametrize("step", [Quantise(), Jpeg()])
def test_the_oracle_folds_what_stands_behind_a_step_and_keeps_it_in_float32(step, classifier, material):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module, _ = step.apply(classifier(Normalised(network, [0.5], [0.25])), material((1, 8, 8)))
    found = oracle.try_form(Passes(module=module, batch=16), torch.rand(16, 1, 8, 8), "folded", gradients=True)
    assert isinstance(found, oracle.Choice), found
    lowered = oracle.build(module, "folded", "bfloat16")
    images = torch.full((1, 1, 8, 8), 100 / 255)  # bfloat16 has no number so near to it that it would stay this one
    seen: list[Tensor] = []
    hooked = lowered.get_submodule("network")
    hooked.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    lowered(images)
    assert seen[0].dtype == torch.float32
    assert float(seen[0][0, 0, 0, 0]) == pytest.approx(100 / 255, abs=1e-6)
