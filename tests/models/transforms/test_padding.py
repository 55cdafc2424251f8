"""Swapped padding against networks that are rebuilt here with padding layers; what is left is listed, or refused."""

import copy
import math
from collections.abc import Callable
from functools import cache

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robusteval.engine import oracle
from robusteval.engine.passes import Passes
from robusteval.errors import UserError
from robusteval.models import torchvision
from robusteval.models.transforms.padding import Padding
from robusteval.models.transforms.swap import Mode, Prepadded

# Torch says so of an even kernel whose padding is "same": more of it on one side.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

MODES: tuple[Mode, ...] = ("reflect", "replicate", "circular")
LAYERS = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d, "circular": nn.CircularPad2d}
MAX = "max-pooling, which pads with minus infinity"


class Plain(nn.Module):
    """Every kind of padding that torch's own convolution knows, with and without."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, (5, 3), padding=(2, 0), groups=8, bias=False),
            nn.Conv2d(8, 8, 4, padding="same"),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 12, 3, stride=2, padding=2, dilation=2),
            nn.Conv2d(12, 12, 3, padding="valid"),
            nn.Conv2d(12, 6, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean((2, 3))


def same(conv: nn.Conv2d, size: torch.Size) -> tuple[int, int, int, int]:
    """Return TensorFlow's padding (left, right, top, bottom) of a convolution on an input of ``size``."""
    total = [
        max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
        for n, s, d, k in zip(size[2:], conv.stride, conv.dilation, conv.kernel_size, strict=True)
    ]
    return total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2


class Padded(nn.Module):
    """A convolution behind one of torch's padding layers."""

    def __init__(self, conv: nn.Conv2d, mode: str) -> None:
        super().__init__()
        self.mode, self.dynamic = mode, type(conv).__name__ == "Conv2dSame"
        self.string = conv.padding == "same"
        self.amount = conv.padding
        self.conv = nn.Conv2d(conv.in_channels, conv.out_channels, 1, groups=conv.groups)
        for option in ("kernel_size", "stride", "dilation"):
            setattr(self.conv, option, getattr(conv, option))
        self.conv.weight, self.conv.bias = conv.weight, conv.bias  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, x: Tensor) -> Tensor:
        if self.dynamic:
            by = same(self.conv, x.shape)
        elif self.string:
            totals = [d * (k - 1) for d, k in zip(self.conv.dilation, self.conv.kernel_size, strict=True)]
            by = (totals[1] // 2, totals[1] - totals[1] // 2, totals[0] // 2, totals[0] - totals[0] // 2)
        else:
            vertical, horizontal = self.amount
            by = (int(horizontal), int(horizontal), int(vertical), int(vertical))
        return self.conv(LAYERS[self.mode](by)(x))


def rebuilt(network: nn.Module, mode: str) -> nn.Module:
    """Return a copy whose convolutions that pad do so by a layer of their own."""
    copied = copy.deepcopy(network)
    for name, part in list(copied.named_modules()):
        pads = isinstance(part, nn.Conv2d) and part.padding != "valid" and part.padding not in ((0, 0), 0)
        if isinstance(part, nn.Conv2d) and (pads or type(part).__name__ == "Conv2dSame"):
            copied.set_submodule(name, Padded(part, mode))
    return copied


@cache
def network(name: str) -> nn.Module:
    """Return a fresh network whose BatchNorm is not the identity, in eval mode; do not change it."""
    torch.manual_seed(0)
    if name == "plain":
        made = Plain()
    elif name == "vit_b_16":  # its kind, without 86 million weights
        from torchvision.models import VisionTransformer

        made = VisionTransformer(image_size=32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8)
    elif name.startswith("timm/"):
        made = timm.create_model(name.removeprefix("timm/"), num_classes=10)
    else:
        made = torchvision.build(name, 10, 224)
    if name == "vgg16_bn":  # its classifier has 120 million weights
        made.set_submodule("classifier", nn.Linear(512 * 7 * 7, 10))
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return made.eval()


# Name, side, mode, how many convolutions get it, and what is left as it was.
SWAPPED = [
    ("resnet18", 64, "reflect", 17, [("maxpool", MAX)]),
    ("resnet50", 64, "circular", 17, [("maxpool", MAX)]),
    ("densenet121", 64, "reflect", 59, [("features.pool0", MAX)]),
    ("vgg16_bn", 32, "reflect", 13, []),
    ("mobilenet_v3_small", 96, "replicate", 12, []),
    ("timm/convnext_atto", 64, "replicate", 12, []),
    ("timm/tf_efficientnet_lite0", 96, "reflect", 17, []),
]


@pytest.mark.parametrize(("name", "side", "mode", "count", "left"), SWAPPED, ids=[row[0] for row in SWAPPED])
def test_known_networks(name, side, mode, count, left, classifier, material):
    given, images = network(name), torch.rand(2, 3, side, side)
    module, facts = Padding(mode=mode).apply(classifier(copy.deepcopy(given)), material((3, side, side)))
    assert len(facts["swapped"]) == count
    assert [(row["layer"], row["what"]) for row in facts["left"]] == left
    with torch.no_grad():
        torch.testing.assert_close(module(images), rebuilt(given, mode)(images))
        assert not torch.allclose(module(images), given(images), rtol=0, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_the_network_built_with_it(mode, classifier, material):
    given, images = network("plain"), torch.rand(4, 3, 16, 17)
    module, facts = Padding(mode=mode).apply(classifier(copy.deepcopy(given)), material((3, 16, 17)))
    assert facts == {"swapped": [f"layers.{place}" for place in (0, 2, 3, 5)], "left": []}
    with torch.no_grad():
        torch.testing.assert_close(module(images), rebuilt(given, mode)(images), rtol=0, atol=1e-6)
        assert float((module(images) - given(images)).abs().max()) > 1e-4


@pytest.mark.parametrize("name", ["plain", "resnet18", "timm/tf_efficientnet_lite0"])
def test_zeros_change_no_bit_and_take_back_another_mode(name, classifier, material):
    side = 96 if name.startswith("timm/") else 64
    given, images = network(name), torch.rand(2, 3, side, side)
    module, facts = Padding(mode="zeros").apply(classifier(copy.deepcopy(given)), material((3, side, side)))
    assert facts["swapped"]
    assert not any(isinstance(part, Prepadded) for part in module.modules())  # whose sums may round otherwise
    assert torch.equal(module(images), given(images))
    if name == "plain":
        other, _ = Padding(mode="reflect").apply(classifier(copy.deepcopy(given)), material((3, side, side)))
        back, told = Padding(mode="zeros").apply(classifier(other), material((3, side, side)))
        assert told["swapped"] == facts["swapped"]
        assert torch.equal(back(images), given(images))


@pytest.mark.parametrize("name", ["vit_b_16", "nothing"])
def test_a_network_that_never_pads_is_refused(name, classifier, material):
    given = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 1, 1)) if name == "nothing" else network(name)
    with pytest.raises(UserError, match="no convolution of net pads") as caught:
        Padding(mode="reflect").apply(classifier(given), material((3, 32, 32)))
    assert ("max-pooling" in str(caught.value)) == (name == "nothing")


def test_sizes_that_cannot_be_are_refused_by_the_layer(classifier, material):
    given = copy.deepcopy(network("timm/convnext_atto"))
    with pytest.raises(UserError, match=r"mode=reflect cannot pad 3 pixels on an input of 2x2.*'stages\.3\.blocks\.0"):
        Padding(mode="reflect").apply(classifier(given), material((3, 64, 64)))
    cases: list[tuple[int, Mode, bool]] = [(2, "reflect", False), (1, "reflect", True), (3, "circular", False)]
    for pixels, mode, fits in [*cases, (2, "circular", True)]:
        conv = nn.Sequential(nn.Conv2d(1, 1, 2 * pixels + 1, padding=pixels))
        if fits:
            Padding(mode=mode).apply(classifier(conv), material((1, 2, 2)))
        else:
            with pytest.raises(UserError, match=f"cannot pad {pixels} pixels on an input of 2x2"):
                Padding(mode=mode).apply(classifier(conv), material((1, 2, 2)))


class Standardised(nn.Conv2d):
    """A user's weight standardisation: a forward pass of its own that reads ``self.padding``."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Stubborn(nn.Conv2d):
    """A forward pass that pads whatever its options say, by more on one side."""

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(F.pad(input, (2, 0, 2, 0)), self.weight, self.bias)


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.good = Standardised(3, 4, 3, padding=1)
        self.stubborn = Stubborn(4, 4, 3, padding=1)
        self.frame = nn.ZeroPad2d(1)
        self.pool = nn.AvgPool2d(3, 1, 1)
        self.up = nn.ConvTranspose2d(4, 4, 3, padding=1)
        self.kernel = nn.Parameter(torch.randn(5, 4, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.pool(self.frame(self.stubborn(self.good(x)))))
        return F.conv2d(x, self.kernel, padding=1).mean((2, 3))


def test_layers_with_a_forward_pass_of_their_own_are_swapped_where_that_can_be_shown(classifier, material):
    torch.manual_seed(0)
    given, images = Mixed().eval(), torch.rand(2, 3, 9, 9)
    module, facts = Padding(mode="reflect").apply(classifier(copy.deepcopy(given)), material((3, 9, 9)))
    assert facts["swapped"] == ["good"]
    assert [row["layer"] for row in facts["left"]] == ["stubborn", "frame", "pool", ""]
    assert "pads with 0" in facts["left"][1]["what"]
    reference = copy.deepcopy(given)
    reference.good.padding = (0, 0)
    with torch.no_grad():
        inside = given.stubborn(reference.good(F.pad(images, (1, 1, 1, 1), "reflect")))
        due = F.conv2d(given.up(given.pool(given.frame(inside))), given.kernel, padding=1).mean((2, 3))
        torch.testing.assert_close(module(images), due)
        assert not torch.allclose(module(images), given(images))


@pytest.mark.parametrize("name", ["resnetv2_50x1_bit", "nf_resnet26"])
def test_timms_standardised_convolutions(name, classifier, material):
    torch.manual_seed(0)
    given = timm.create_model(name, num_classes=10).eval()
    module, facts = Padding(mode="replicate").apply(classifier(given), material((3, 64, 64)))
    assert len(facts["swapped"]) >= 9
    assert all(isinstance(module.get_submodule(layer), Prepadded) for layer in facts["swapped"])
    assert all("convolution" not in row["what"] for row in facts["left"])


def test_the_folded_oracle_serves_a_swapped_network(classifier, material):
    module, _ = Padding(mode="reflect").apply(classifier(copy.deepcopy(network("resnet18"))), material((3, 64, 64)))
    found = oracle.try_form(Passes(module=module, batch=16), torch.rand(16, 3, 64, 64), "folded", gradients=True)
    assert isinstance(found, oracle.Choice), found


def test_batch_norm_statistics_of_held_out_images(classifier, material):
    torch.manual_seed(0)
    given = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.rand(128, 1, 6, 6)
    module, facts = Padding(mode="circular", bn_images=128).apply(
        classifier(copy.deepcopy(given)), material((1, 6, 6), (images, torch.zeros(128)))
    )
    with torch.no_grad():
        conv = given.get_submodule("0")
        padded = F.pad(images, (1, 1, 1, 1), mode="circular")
        due = F.conv2d(padded, conv.get_parameter("weight"), conv.get_parameter("bias"))
        parts = due.split(64)
    norm = module.get_submodule("1")
    torch.testing.assert_close(norm.get_buffer("running_mean"), due.mean((0, 2, 3)))
    variance = torch.stack([part.transpose(0, 1).flatten(1).var(1) for part in parts]).mean(0)
    torch.testing.assert_close(norm.get_buffer("running_var"), variance)
    assert (facts["bn_layers"], facts["bn_used"], facts["bn_source"]) == (1, 128, "the test")
    assert not any(part.training for part in module.modules())
    with pytest.raises(UserError, match="no BatchNorm"):
        Padding(mode="circular", bn_images=8).apply(
            classifier(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1))), material((1, 6, 6))
        )


def test_a_network_that_fails_is_told(classifier, material: Callable):
    with pytest.raises(UserError, match=r"the network fails on images \[1, 1, 6, 6\] \(RuntimeError"):
        Padding(mode="reflect").apply(classifier(nn.Sequential(nn.Conv2d(3, 2, 3, padding=1))), material((1, 6, 6)))
