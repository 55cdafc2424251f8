"""Whether images reach the network as it was trained on them: their range, and normalisation once too often or never.

Another normalisation is tried where the network is often wrong as given: far more right answers by it say that it is
missing, or there twice.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from robusteval.classifier import Normalised
from robusteval.engine.passes import Passes

# Means and standard deviations that networks are trained with, by the number of channels.
_USUAL: dict[int, dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    1: {"MNIST's": ((0.1307,), (0.3081,)), "mean 0.5 and sd 0.5": ((0.5,), (0.5,))},
    3: {
        "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "CIFAR-10's": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
        "mean 0.5 and sd 0.5": ((0.5,) * 3, (0.5,) * 3),
    },
}
_GOOD = 0.9  # accuracy from which on no other normalisation can be much better


def look(passes: Passes, images: Tensor, labels: Tensor, logits: Tensor) -> dict[str, Any]:
    """Return {images, low, high, right, labels, answers, normalisations} of images [n, C, H, W] with labels [n].

    ``logits`` [n, classes] are the answers as given, ``labels`` and ``answers`` how many classes occur in either.
    ``normalisations`` has, for each other way that was tried, how many images are right only that way (``gained``),
    how many only as given (``lost``), and how many classes those right that way belong to (``classes``).
    """
    right = logits.argmax(1) == labels
    tried = {}
    if right.double().mean() < _GOOD:
        for name, other in _others(passes, images.shape[1]):
            answers = other.logits(images).argmax(1) == labels
            tried[name] = {
                "gained": int((answers & ~right).sum()),
                "lost": int((right & ~answers).sum()),
                "classes": len(labels[answers].unique()),
            }
    return {
        "images": len(images),
        "low": float(images.min()),
        "high": float(images.max()),
        "right": int(right.sum()),
        "labels": len(labels.unique()),
        "answers": len(logits.argmax(1).unique()),
        "normalisations": tried,
    }


def _others(passes: Passes, channels: int) -> Iterator[tuple[str, Passes]]:
    module = passes.module
    if isinstance(module, Normalised):
        yield "without model.mean and model.sd", _passes(passes, module.network)
    for name, (mean, sd) in _USUAL.get(channels, {}).items():
        yield f"normalised by {name}", _passes(passes, _Rescaled(module, (mean, sd)))
        yield f"with one normalisation by {name} undone", _passes(passes, _Rescaled(module, (mean, sd), undo=True))
    yield "in 0 to 255", _passes(passes, _Rescaled(module, ((0.0,), (1 / 255,))))


def _passes(passes: Passes, module: nn.Module) -> Passes:
    return Passes(module=module, batch=passes.batch)


class _Rescaled(nn.Module):
    """A network behind one more normalisation, or its inverse."""

    def __init__(
        self, network: nn.Module, by: tuple[tuple[float, ...], tuple[float, ...]], *, undo: bool = False
    ) -> None:
        super().__init__()
        self.network, self.by, self.undo = network, by, undo

    def forward(self, images: Tensor) -> Tensor:
        mean, sd = (torch.tensor(values, device=images.device).view(1, -1, 1, 1) for values in self.by)
        return self.network(images * sd + mean if self.undo else (images - mean) / sd)
