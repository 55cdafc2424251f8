"""Where a network pads, seen from its operations in one pass, whatever the layers are called that ask for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

# Operations that pad by themselves, and where their arguments hold the padding.
_PADDING_OF = {
    "aten::convolution": ("a convolution that pads with zeros", 4),
    "aten::max_pool2d_with_indices": ("max-pooling, which pads with minus infinity", 3),
    "aten::max_pool2d": ("max-pooling, which pads with minus infinity", 3),
    "aten::avg_pool2d": ("average pooling that pads with zeros", 3),
}
_TRANSPOSED = 6


@dataclass(kw_only=True)
class Seen:
    """What one pass showed: the input shapes of every convolutional layer, and where something was padded.

    ``places`` are (layer, what it does), each once, in the order of the pass.
    """

    inputs: dict[str, list[torch.Size]] = field(default_factory=dict)
    places: dict[tuple[str, str], None] = field(default_factory=dict)


def look(network: nn.Module, example: Tensor) -> Seen:
    """Return where a network, in eval mode, pads when it sees ``example`` [n, C, H, W]."""
    seen, stack = Seen(), [""]
    with torch.no_grad(), _named(network, seen, stack), _Operations(seen, stack):
        network(example)
    return seen


@contextmanager
def _named(network: nn.Module, seen: Seen, stack: list[str]) -> Iterator[None]:
    """Keep the name of the innermost layer at work on top of ``stack``."""
    handles = []
    for name, module in network.named_modules():

        def enter(layer: nn.Module, given: tuple[Any, ...], name: str = name) -> None:
            stack.append(name)
            if isinstance(layer, _ConvNd) and given and isinstance(given[0], Tensor):
                seen.inputs.setdefault(name, []).append(given[0].shape)

        def leave(_layer: nn.Module, _given: object, _came: object) -> None:
            stack.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Operations(TorchDispatchMode):
    def __init__(self, seen: Seen, stack: list[str]) -> None:
        super().__init__()
        self._seen, self._stack = seen, stack

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name in _PADDING_OF:
            what, place = _PADDING_OF[name]
            padding = args[place] if len(args) > place else (kwargs or {}).get("padding", [0])
            transposed = name == "aten::convolution" and args[_TRANSPOSED]
            if any(padding) and not transposed:
                self._seen.places[self._stack[-1], what] = None
        elif name == "aten::constant_pad_nd" and any(args[1][: 2 * (args[0].ndim - 2)]):
            value = args[2] if len(args) > 2 else 0
            self._seen.places[self._stack[-1], f"a step of its own that pads with {value:g}"] = None
        return func(*args, **(kwargs or {}))
