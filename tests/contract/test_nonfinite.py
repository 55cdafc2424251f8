"""NaN and infinity: logits that hold them count as broken and are reported; gradients that hold them crash nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robusteval.closed_form import small_convnet
from robusteval.engine.direct import search
from robusteval.errors import UserError


class Spoilt(nn.Module):
    """A network whose every answer but that on the clean images holds ``value``."""

    def __init__(self, network: nn.Module, clean: Tensor, value: float, column: int) -> None:
        super().__init__()
        self.network, self.clean, self.value, self.column = network, clean, value, column

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        known = (images[:, None] == self.clean[None]).flatten(2).all(2).any(1)
        spoilt = torch.zeros_like(logits)
        spoilt[:, self.column] = self.value
        return torch.where(known[:, None], logits, logits + spoilt)


@pytest.mark.parametrize("stop", ["first", "never"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_count_as_broken_and_are_reported(case: Any, value: float, stop: Any) -> None:
    if not case.attack.stages(case.norm):
        pytest.skip("no attack, no other image")
    if value == value and not case.leads:
        pytest.skip("infinite ones are tried with each attack's first options")
    if stop == "never" and (case.attack.columns() is not None or not case.leads):
        pytest.skip("a survey stops at nothing anyway; the whole budget is tried with each attack's first options")
    network = small_convnet(classes=5)
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(7)) * 0.3 + 0.3
    labels = network(images).argmax(1)
    far = case.attack.own_set or case.attack.keeps == "nearest"  # what it asks about may lie outside a small ball
    # The label's own logit: an infinite one would win the argmax, and must not count as right for that.
    for column in (int(labels[0]), (int(labels[0]) + 1) % 5):
        module = Spoilt(network, images, value, column)
        threat = case.within(None if case.norm == "unbounded" else 100.0) if far else case.threat
        board = search(case.attack, module, images, labels, threat, stop=stop)
        moved = board.moved
        assert moved.any()
        assert board.broken[moved].all()
        assert board.nonfinite[moved].all()


class SpoiltGradient(torch.autograd.Function):
    """The identity, with a gradient of NaN and infinity in two places."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradient = gradient.clone()
        gradient[:, 0, 0, 0] = torch.nan
        gradient[:, 0, 0, 1] = torch.inf
        return gradient


class BadGradients(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(SpoiltGradient.apply(images))


def uses_gradients(case: Any) -> bool:
    return case.attack.gradients


def test_gradients_that_are_not_finite_are_reported_and_crash_nothing(case: Any) -> None:
    network = small_convnet()
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(8))
    labels = network(images).argmax(1)
    board = search(case.attack, BadGradients(network), images, labels, case.threat, stop="never")
    assert board.nonfinite.tolist() == [uses_gradients(case)] * 5
    assert board.point.isfinite().all()
    if uses_gradients(case):
        assert board.moved.any(), "the other entries of the gradient still serve"


def test_logits_that_are_not_finite_on_the_clean_image_are_broken_from_the_start(case: Any) -> None:
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    labels = torch.zeros(4, dtype=torch.long)

    class Always(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :10] * 0 + torch.nan

    for stop in ("first", "never"):
        board = search(case.attack, Always(), images, labels, case.threat, stop=stop)
        assert board.broken.all()


class Detached(nn.Module):
    def __init__(self, network: nn.Module, how: str) -> None:
        super().__init__()
        self.network, self.how = network, how

    def forward(self, images: Tensor) -> Tensor:
        if self.how == "detach":
            return self.network(images).detach()
        if self.how == "detach input":
            return self.network(images.detach())
        if self.how == "numpy":
            return self.network(torch.from_numpy(images.detach().numpy()))
        with torch.no_grad():
            return self.network(images)


@pytest.mark.parametrize("how", ["detach", "detach input", "numpy", "no_grad"])
def test_a_detached_graph_is_refused_for_gradients_only(case: Any, how: str) -> None:
    if not case.leads:
        pytest.skip("whether it asks for gradients is the attack's, whatever its options")
    network = small_convnet()
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(10))
    labels = network(images).argmax(1)
    if uses_gradients(case):
        with pytest.raises(UserError, match=r"do not depend differentiably on the image .* use attack=solarize"):
            search(case.attack, Detached(network, how), images, labels, case.threat)
    else:
        search(case.attack, Detached(network, how), images, labels, case.threat)
