"""Another padding in one convolutional layer, its weights as they are.

Torch's own layers know padding modes. A layer with a forward pass of its own (weight standardisation, TensorFlow's
padding) is fed an input that is padded already, if that is shown to change nothing as long as the padding is zeros.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

Mode = Literal["zeros", "reflect", "replicate", "circular"]

Widths = tuple[int, ...]
"""Pixels before and after, the last dimension first, as torch.nn.functional.pad takes them."""

_OWN = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SAME = 1e-5  # of the largest number that a layer answers


def widths(layer: _ConvNd) -> Widths:
    """Return by how much a layer's options make it pad; all zeros where it does not."""
    out: list[int] = []
    for k, d, place in zip(layer.kernel_size[::-1], layer.dilation[::-1], range(len(layer.kernel_size)), strict=True):
        if isinstance(layer.padding, str):
            total = d * (k - 1) if layer.padding == "same" else 0
            out += [total // 2, total - total // 2]
        else:
            out += [layer.padding[::-1][place]] * 2
    return tuple(out)


def same_widths(layer: _ConvNd, size: torch.Size) -> Widths:
    """Return by how much TensorFlow's padding widens an input of ``size`` [n, C, ...]: to ceil(size / stride)."""
    out: list[int] = []
    options = zip(layer.kernel_size[::-1], layer.dilation[::-1], layer.stride[::-1], size[:1:-1], strict=True)
    for k, d, s, n in options:
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        out += [total // 2, total - total // 2]
    return tuple(out)


def pad(images: Tensor, by: Widths, mode: str) -> Tensor:
    """Return images wider by ``by``, filled according to ``mode``."""
    return F.pad(images, by, mode="constant" if mode == "zeros" else mode) if any(by) else images


def native(layer: _ConvNd) -> bool:
    """Return whether a layer runs torch's own forward pass, which knows padding modes."""
    kind = next((kind for kind in _OWN if isinstance(layer, kind)), None)
    if kind is None:
        return False
    return type(layer).forward is kind.forward and type(layer)._conv_forward is kind._conv_forward


def switch(layer: _ConvNd, mode: Mode) -> None:
    """Set the mode of a layer that runs torch's own forward pass."""
    layer.padding_mode = mode
    # Torch fills this in when a layer is made; padding that was changed afterwards would be missed.
    layer._reversed_padding_repeated_twice = list(widths(layer))


class Prepadded(nn.Module):
    """A layer that is fed padded inputs and pads no more itself.

    ``fixed`` says by how much; None stands for TensorFlow's rule. ``plainly`` means torch's operation with the layer's
    weights instead of the layer's own forward pass.
    """

    def __init__(self, layer: _ConvNd, fixed: Widths | None, *, plainly: bool) -> None:
        super().__init__()
        self.layer, self.fixed, self.plainly = layer, fixed, plainly
        self.mode: Mode = "zeros"

    def forward(self, images: Tensor) -> Tensor:
        padded = pad(images, self.by(images.shape), self.mode)
        if not self.plainly:
            return self.layer(padded)
        operation = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[images.ndim]
        layer = self.layer
        return operation(padded, layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)

    def by(self, size: torch.Size) -> Widths:
        """Return how much an input of ``size`` is widened by."""
        return same_widths(self.layer, size) if self.fixed is None else self.fixed


def wrapped(layer: _ConvNd, inputs: torch.Size, mode: Mode) -> Prepadded | None:
    """Return a layer with a forward pass of its own, padded by us in ``mode``; None where that cannot be shown.

    Each way is tried with zeros first, on random inputs of the shape that the layer meets: its answers must not change.
    """
    random = torch.Generator().manual_seed(0)
    like = layer.weight
    shape = (2, *inputs[1:])
    images = torch.randn(shape, generator=random).to(like)
    with torch.no_grad():
        due = layer(images)
        for found in _ways(layer):
            try:
                came = found(images)
            except (RuntimeError, ValueError, TypeError, AttributeError):
                continue
            if came.shape == due.shape and bool(((came - due).abs() <= _SAME * due.abs().max()).all()):
                found.mode = mode
                return found
    return None


def _ways(layer: _ConvNd) -> Iterator[Prepadded]:
    """Yield the ways to take the padding out of a layer, with zeros for the time being; each undoes the one before."""
    padding, fixed, nothing = layer.padding, widths(layer), (0,) * len(layer.kernel_size)
    if any(fixed):
        layer.padding = nothing
        yield Prepadded(layer, fixed, plainly=False)
        layer.padding = padding
        yield Prepadded(layer, fixed, plainly=True)
    if getattr(layer, "same_pad", False):  # how timm's layers note TensorFlow's padding
        vars(layer)["same_pad"] = False
        yield Prepadded(layer, None, plainly=False)
        vars(layer)["same_pad"] = True
    yield Prepadded(layer, None, plainly=True)
