"""Another padding in every convolution that pads: the weights were trained with the one before (a *swap*)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from robusteval.classifier import Classifier
from robusteval.models.transforms.base import Facts, Material, Transform, refuse
from robusteval.models.transforms.swap import Mode, Widths, native, switch, widths, wrapped
from robusteval.models.transforms.zero_padding import Seen, look

_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Padding(Transform):
    """``mode`` of the padding of every convolution that pads, as torch.nn.functional.pad defines it (Gavrikov & Keuper
    2023, https://arxiv.org/abs/2308.06612, who train each network with its own instead).

    What is no convolution keeps its padding and is listed: pooling, and steps of their own that pad with zeros.
    ``bn_images``, if not 0, is on how many held-out images the statistics of BatchNorm are estimated anew (their labels
    are not used): those of the dataset that ``dataset.n`` did not draw, or of the file ``path`` (.npz or .safetensors).
    """

    mode: Mode = "zeros"
    bn_images: Annotated[int, Ge(0)] = 0
    path: str | None = None

    method: ClassVar[str] = "padding"

    def __post_init__(self) -> None:
        if self.path is not None and not self.bn_images:
            raise ValueError("path= is of images for BatchNorm; set bn_images= as well, or leave it out")

    def label(self) -> str:
        again = f", BatchNorm of {self.bn_images} images" if self.bn_images else ""
        return f"padding({self.mode}, swap{again})"

    def apply(self, classifier: Classifier, material: Material) -> tuple[nn.Module, Facts]:
        network = classifier.module.eval()
        before = _seen(network, material.example)
        swapped = self._swap(network, before)
        if not swapped:
            left = f" ({_listed(before)})" if before.places else ""
            raise refuse(
                "padding",
                f"no convolution of {classifier.name} pads in a way that can be swapped{left}, so there is nothing to "
                "do; leave the transform out",
            )
        facts: Facts = {"swapped": swapped, "left": self._left(network, swapped, material.example, before)}
        if self.bn_images:
            facts |= _estimate_again(network, self.bn_images, self.path, material)
        return network, facts

    def _swap(self, network: nn.Module, seen: Seen) -> list[str]:
        """Swap the padding of every convolution that the pass showed to pad; return the names of those."""
        swapped, padding = [], {name for name, _ in seen.places}
        layers = [(name, part) for name, part in network.named_modules() if isinstance(part, _ConvNd)]
        for name, layer in layers:
            sizes = seen.inputs.get(name, [])
            if not sizes:
                continue
            if native(layer) and any(widths(layer)):
                self._check(name, [widths(layer)] * len(sizes), sizes)
                switch(layer, self.mode)
            elif name in padding and (found := wrapped(copy.deepcopy(layer), sizes[0], self.mode)) is not None:
                self._check(name, [found.by(size) for size in sizes], sizes)
                if self.mode != "zeros":  # which it does by itself, to the last bit
                    network.set_submodule(name, found)
            else:
                continue
            swapped.append(name)
        return swapped

    def _check(self, name: str, by: Sequence[Widths], sizes: Sequence[torch.Size]) -> None:
        """Refuse what torch cannot do: to reflect, or to go round, more pixels than there are."""
        spare = {"reflect": 1, "circular": 0}.get(self.mode)
        for width, size in zip(by, sizes, strict=True):
            for place, pixels in enumerate(width):
                there = size[-1 - place // 2]
                if spare is not None and pixels > there - spare:
                    shape = "x".join(map(str, size[2:]))
                    raise refuse(
                        "padding",
                        f"mode={self.mode} cannot pad {pixels} pixels on an input of {shape}, which '{name}' asks for; "
                        "use zeros or replicate, or larger images",
                    )

    def _left(self, network: nn.Module, swapped: Sequence[str], example: Tensor, before: Seen) -> list[dict[str, str]]:
        """Return where the network still pads as before; with zeros a swap leaves no trace, so what was seen before."""
        seen = before if self.mode == "zeros" else _seen(network, example)
        return [
            {"layer": name.removesuffix(".layer"), "what": what}
            for name, what in seen.places
            if name not in swapped and name.removesuffix(".layer") not in swapped
        ]


def _seen(network: nn.Module, example: Tensor) -> Seen:
    try:
        return look(network, example)
    # The forward pass may be the user's own code, which may raise anything.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        shape = list(example.shape)
        raise refuse("padding", f"the network fails on images {shape} ({type(error).__name__}: {reason})") from error


def _listed(seen: Seen) -> str:
    every = [f"'{name}': {what}" for name, what in seen.places]
    return ", ".join(every[:3]) + (", ..." if len(every) > 3 else "")


def _estimate_again(network: nn.Module, images: int, path: str | None, material: Material) -> Facts:
    """Set the running statistics of every BatchNorm to the mean over batches of held-out images, all of one weight."""
    norms = [part for part in network.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]
    if not norms:
        raise refuse("padding", f"bn_images={images}, but the network has no BatchNorm statistics; leave it out")
    held_out = material.held_out(images, path)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches, instead of the last ones
        norm.train()
    with torch.no_grad():
        # Batches of one size, or each would not weigh the same: at most 63 images are left over.
        batch = min(_BATCH, len(held_out.images))
        for part in held_out.images[: len(held_out.images) // batch * batch].split(batch):
            network(part)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
    return {
        "bn_layers": len(norms),
        "bn_source": held_out.source,
        "bn_used": len(held_out.images) // batch * batch,
        "bn_digest": held_out.digest,
    }
