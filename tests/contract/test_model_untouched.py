"""The user's model comes back as it was: flags, hooks, buffers, gradients; and its images too."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robusteval.closed_form import small_convnet
from robusteval.engine.direct import search


class Awkward(nn.Module):
    """In training mode but for one part, some parameters frozen, one with a gradient, and a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.network = small_convnet(classes=5)
        self.dropout = nn.Dropout(0.5)
        self.calls = 0
        self.train()
        next(part for part in self.modules() if isinstance(part, nn.BatchNorm2d)).eval()
        first, second, *_ = self.parameters()
        first.requires_grad_(False)
        second.grad = torch.ones_like(second)
        self.hook = self.network.register_forward_hook(self.count)

    def count(self, *_: Any) -> None:
        self.calls += 1

    def forward(self, images: Tensor) -> Tensor:
        return self.dropout(self.network(images))


def snapshot(module: nn.Module) -> dict[str, Any]:
    return {
        "training": {name: part.training for name, part in module.named_modules()},
        "wanting": {name: p.requires_grad for name, p in module.named_parameters()},
        "gradients": {name: None if p.grad is None else p.grad.tolist() for name, p in module.named_parameters()},
        "devices": {name: (str(p.device), p.dtype, id(p)) for name, p in module.named_parameters()},
        "state": {name: value.tolist() for name, value in module.state_dict().items()},
        "hooks": {
            name: (len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks))
            for name, part in module.named_modules()
        },
    }


def test_the_model_comes_back_as_it_was(case: Any) -> None:
    module = Awkward()
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        labels = module.network(images).argmax(1)
    before, kept = snapshot(module), (images.clone(), labels.clone())
    calls = module.calls
    search(case.attack, module, images, labels, case.threat, stop="never")
    assert snapshot(module) == before
    assert module.calls > calls, "its hooks were called all along"
    assert torch.equal(images, kept[0])
    assert torch.equal(labels, kept[1])
    assert torch.is_grad_enabled()


def test_the_model_comes_back_even_after_an_error() -> None:
    from robusteval.engine.passes import frozen

    module = Awkward()
    before, cudnn = snapshot(module), torch.backends.cudnn
    flags = (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic)

    def fails() -> None:
        with frozen(module):
            assert not any(part.training for part in module.modules())
            assert not any(p.requires_grad for p in module.parameters())
            # On a GPU: full float32, kernels chosen by no clock, and sums in a certain order.
            assert (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic) == (False, False, True)
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fails()
    assert snapshot(module) == before
    assert (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic) == flags


def test_a_model_that_works_in_place_cannot_change_the_images(case: Any) -> None:
    class InPlace(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images.sub_(0.5).div_(0.25))

    class Apart(InPlace):
        def forward(self, images: Tensor) -> Tensor:
            return self.network((images - 0.5) / 0.25)

    network = small_convnet(classes=5)
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(6))  # 16: a pass needs no padding
    labels = Apart(network)(images).argmax(1)
    kept = images.clone()
    board = search(case.attack, InPlace(network), images, labels, case.threat, slots=16)
    reference = search(case.attack, Apart(network), kept, labels, case.threat, slots=16)
    assert torch.equal(images, kept)
    assert torch.equal(board.point, reference.point)
    assert torch.equal(board.broken, reference.broken)
