"""The gradient of a strided first convolution, against autograd's own, and which convolutions get it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robusteval.engine import oracle, stem
from robusteval.errors import UserError


def slope(module: nn.Module, images: Tensor) -> Tensor:
    """Return the gradient of a sum of the outputs with fixed weights."""
    points = images.clone().requires_grad_()
    out = module(points)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    return torch.autograd.grad((out * weights).sum(), points)[0]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False},
        {"kernel_size": (2, 5), "stride": (3, 2), "padding": (0, 2)},
        {"kernel_size": 2, "stride": 3},
    ],
)
def test_answers_and_gradient_are_autograds(channels: int, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(channels, 5, **options)).double().requires_grad_(False)
    images = torch.rand(6, channels, 13, 10, dtype=torch.float64)
    other = oracle.build(plain, "stem", "float32")
    assert type(plain[0]) is nn.Conv2d, "the model as given is left alone"
    assert type(other.get_submodule("0")) is stem.Stem
    assert torch.equal(other(images), plain(images))
    torch.testing.assert_close(slope(other, images), slope(plain, images), rtol=1e-12, atol=1e-12)
    ordered = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(slope(other, ordered), slope(plain, images), rtol=1e-12, atol=1e-12)
    assert torch.equal(other[0](images[0]), plain[0](images[0])), "a single image without a batch"  # pyright: ignore


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},  # no stride
        {"kernel_size": 7, "stride": 2},  # whose columns would take twelve times the image's memory
        {"kernel_size": 3, "stride": 2, "dilation": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1, "padding_mode": "reflect"},
        {"kernel_size": 3, "stride": 2, "groups": 3},
        {"kernel_size": 3, "stride": (1, 2)},
    ],
)
def test_others_are_left_alone(options: dict[str, Any]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, **options), nn.Conv2d(6, 6, 3, stride=2))
    assert not stem.within(model)
    with pytest.raises(UserError, match="few channels"):
        oracle.build(model, "stem", "float32")


def test_a_row_has_the_same_bits_in_any_company() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()).requires_grad_(False)
    other, images = oracle.build(model, "stem", "float32"), torch.rand(64, 3, 32, 32)
    points = images.clone().requires_grad_()
    weights = torch.randn(2048)
    many = torch.autograd.grad((other(points) * weights).sum(), points)[0]
    few = images[32:48].clone().requires_grad_()
    assert torch.equal(torch.autograd.grad((other(few) * weights).sum(), few)[0], many[32:48])
