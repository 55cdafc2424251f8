"""The first convolution of a network, with a gradient that suits its few input channels.

oneDNN takes two to four times as long for the input gradient of a strided convolution of one or three channels as a
matrix product and a scatter do. Of a pass with gradient that is a quarter on the bundled MNIST networks, a tenth on
ResNet-2B.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEW = 4  # channels of an image
_SMALL = 16  # values of a kernel a channel: the columns take this over the stride squared times the image's memory


class Stem(nn.Conv2d):
    """A convolution of frozen weights whose input gradient is the transposed im2col of a matrix product."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() != 4:
            return super().forward(input)
        return _Convolved.apply(input, self.weight, self.bias, self.stride, self.padding)


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.stride, ctx.padding = x.shape[2:], stride, padding
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        columns = weight.flatten(1).t() @ grad_outputs[0].flatten(2)
        slope = F.fold(columns, ctx.size, weight.shape[2:], padding=ctx.padding, stride=ctx.stride)
        return slope, None, None, None, None


def within(module: nn.Module) -> bool:
    """Return whether the network has a convolution that ``replace`` would replace."""
    return any(_is_stem(part) for part in module.modules())


def replace(module: nn.Module) -> bool:
    """Replace them, in place; their weights must be frozen. Return whether there was one."""
    names = [name for name, part in module.named_modules() if name and _is_stem(part)]
    for name in names:
        # The class alone, so that a network that looks at its own weights still finds them.
        module.get_submodule(name).__class__ = Stem
    return bool(names)


def _is_stem(part: nn.Module) -> bool:
    """Return whether it is a plain strided convolution of few channels and a small kernel."""
    return (
        type(part) is nn.Conv2d
        and part.in_channels <= _FEW
        and part.groups == 1
        and min(part.stride) > 1
        and part.kernel_size[0] * part.kernel_size[1] <= _SMALL
        and part.dilation == (1, 1)
        and part.padding_mode == "zeros"
        and not isinstance(part.padding, str)
    )
