"""The planted adversarials: there by construction, found by sound attacks, missed by weak or misled ones."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks.apgd import APGD
from robusteval.attacks.autoattack import AutoAttack
from robusteval.attacks.pgd import PGD
from robusteval.checks.search import planted as check
from robusteval.classifier import Preprocessing
from robusteval.datasets.mnist_5k import Mnist5k
from robusteval.engine import planted
from robusteval.engine.passes import Passes, frozen
from robusteval.engine.stages import stages_of
from robusteval.models.bundled import Bundled
from robusteval.threat import ThreatModel


class Rounded(nn.Module):
    """The network behind rounded input: no gradient, and little that a small step changes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x * 15).round() / 15)


@pytest.fixture(scope="module")
def material() -> dict[str, Any]:
    source = Mnist5k()
    if lacking := source.missing():
        pytest.skip(lacking)
    data = source.load(Preprocessing(), seed=0)
    at = np.linspace(0, len(data) - 1, 16).astype(int)
    nets = {name: Bundled(name=name).load().module.eval() for name in ("mnist_cnn", "mnist_cnn_at")}
    return {"images": data.images(at), "ids": data.ids[at], **nets, "rounded": Rounded(nets["mnist_cnn"]).eval()}


def verdict(material: dict[str, Any], net: str, attack: Any, eps: float, norm: Any = "linf") -> str:
    threat = ThreatModel(norm=norm, eps=eps)
    with frozen(material[net]):
        seen = planted.run(
            Passes(module=material[net], batch=16), material["images"], material["ids"], threat,
            stages_of(attack, threat), seed=0, climb=True,
        )  # fmt: skip
    assert seen["images"] >= 12
    return check(seen, {"gradients": True})["verdict"]


@pytest.mark.parametrize("net", ["mnist_cnn", "mnist_cnn_at"])
def test_what_is_planted_is_an_adversarial_and_what_is_random_is_not(net: str, material: dict[str, Any]) -> None:
    images, ids, threat = material["images"], material["ids"], ThreatModel(norm="linf", eps=0.2)
    with frozen(material[net]):
        passes = Passes(module=material[net], batch=16)
        readout, points, usable = planted.plant(passes, images, ids, threat, 0, climb=True)
        assert len(usable) >= 12
        inside = Passes(module=readout, batch=16)
        assert threat.contains(points, images).all()
        assert (inside.logits(points).argmax(1)[usable] == 1).all()
        assert (inside.logits(images).argmax(1)[usable] == 0).all()
        noise = images + 0.2 * (2 * torch.rand(20, *images.shape, generator=torch.Generator().manual_seed(1)) - 1)
        random = torch.stack([inside.logits(part.clamp(0, 1)).argmax(1)[usable] for part in noise])
        assert (random == 1).double().mean() < 0.02


@pytest.mark.parametrize("net", ["mnist_cnn", "mnist_cnn_at"])
def test_sound_attacks_find_what_is_planted(net: str, material: dict[str, Any]) -> None:
    assert verdict(material, net, AutoAttack(), 0.3) == "pass"
    assert verdict(material, net, APGD(steps=50), 2.0, "l2") == "pass"


@pytest.mark.parametrize("net", ["mnist_cnn", "mnist_cnn_at"])
def test_an_attack_of_one_step_misses_some(net: str, material: dict[str, Any]) -> None:
    assert verdict(material, net, PGD(steps=1), 0.3) == "fail"


def test_an_attack_on_masked_gradients_misses_them(material: dict[str, Any]) -> None:
    assert verdict(material, "rounded", AutoAttack(steps=20, queries=200), 0.1) == "fail"
