"""What a forward pass does besides answering: does it leave eval mode, and does it use autograd itself?"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from robusteval.engine.passes import RAISED_BY_NETWORKS, complaint, padded


def look(module: nn.Module, images: Tensor) -> dict[str, Any]:
    """Return {training, autograd} of a module that was told to be in eval mode, on a few images [n, C, H, W].

    ``training`` names the parts that are in training mode all the same, {name: whether that changes what it computes};
    the module itself is ``model``. ``autograd`` says whether the forward pass runs a backward pass of its own
    (``backward``), records a graph although it was told not to (``enabled``), or neither (``none``).
    """
    images = padded(images)
    recorded, replayed = _Count(), _Count()
    before = torch.is_grad_enabled()
    try:
        # What saves tensors for a backward pass records a graph, and what asks for them again runs one.
        with torch.no_grad(), torch.autograd.graph.saved_tensors_hooks(recorded, replayed):
            module(images)
            leaked = torch.is_grad_enabled()
        recorded_quietly = recorded.times > 0
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(recorded, replayed):
            module(images.requires_grad_())
    except RAISED_BY_NETWORKS as error:
        raise complaint("forward", error) from error
    finally:
        torch.set_grad_enabled(before)
    autograd = "backward" if replayed.times else "enabled" if recorded_quietly or leaked else "none"
    training = {name or "model": _matters(part) for name, part in module.named_modules() if part.training}
    return {"training": training, "autograd": autograd}


class _Count:
    """A hook that changes nothing and counts how often it was called."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        self.times += 1
        return tensor


def _matters(part: nn.Module) -> bool:
    return isinstance(part, _DropoutNd | _BatchNorm | nn.RReLU | nn.modules.instancenorm._InstanceNorm)
