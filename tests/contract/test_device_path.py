"""The device path judges several iterations at once, and comes to the bits of the host path."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robusteval import registry
from robusteval.attacks.base import Attack, WholeBatch
from robusteval.closed_form import small_convnet
from robusteval.engine import device_path
from robusteval.engine.board import Board
from robusteval.engine.direct import search
from robusteval.engine.jobs import Chunk
from robusteval.engine.passes import Passes, frozen
from robusteval.engine.search import Searcher
from robusteval.engine.stages import stages_of
from robusteval.models.bundled import Bundled
from robusteval.threat import ThreatModel


def state_of(board: Board) -> dict[str, Any]:
    """Return everything of a board that ends in the evidence."""
    found: dict[str, Any] = {name: value.numpy() for name, value in vars(board).items() if isinstance(value, Tensor)}
    if board.survey is not None:
        survey = {"prediction": board.survey.prediction, "survey": board.survey.broken, "inside": board.survey.inside}
        found |= {name: value.numpy() for name, value in (survey | board.survey.statistics).items()}
    return found | {"rejected": np.array(board.rejected)}


def difference(a: Board, b: Board) -> list[str]:
    one, other = state_of(a), state_of(b)
    assert set(one) == set(other)
    return [name for name in one if one[name].tobytes() != other[name].tobytes()]


@pytest.fixture(scope="module")
def nets() -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    """A random convolutional net and the bundled one, with images and labels, some of them wrong."""
    numbers = torch.Generator().manual_seed(5)
    strokes = (torch.rand(20, 1, 7, 7, generator=numbers) < 0.4).float()
    pictures = {
        "convnet": (small_convnet(channels=3), torch.rand(40, 3, 8, 8, generator=numbers)),
        "mnist_cnn": (
            Bundled(name="mnist_cnn").load().module.eval(),
            nn.functional.interpolate(strokes, size=28, mode="bilinear").clamp(0, 1),
        ),
    }
    found = {}
    for name, (network, images) in pictures.items():
        with torch.no_grad():
            labels = network(images).argmax(1)
        labels[::9] = (labels[::9] + 1) % 10
        found[name] = (network, images, labels)
    return found


@pytest.mark.parametrize("stop", ["first", "never"])
def test_both_paths_give_the_same_bits(case_in_norm: Any, stop: Any, nets: dict[str, Any]) -> None:
    case = case_in_norm
    network, images, labels = nets["convnet"]
    survey = case.attack.columns() is not None
    if survey and stop == "never":
        pytest.skip("a survey stops at nothing anyway")
    if survey or len(case.attack.stages(case.norm)) > 1:
        images, labels = images[:18], labels[:18]
    for slots in (16, 64):
        host, device = (
            search(case.attack, network, images, labels, case.threat, slots=slots, stop=stop, path=path)
            for path in ("host", "device")
        )
        assert difference(device, host) == [], slots


def made(name: str, **options: Any) -> Attack:
    return registry.lookup(registry.ATTACKS, "attack.method", name)(**options)


# Long enough for full windows, and in the restarts and targets for slots that are filled again in between.
LONG = [
    ("pgd", "linf", {"steps": 21}),
    ("apgd", "linf", {"steps": 30, "loss": "targeted_dlr", "n_targets": 2}),
    ("apgd", "l2", {"steps": 30}),
    ("apgd", "l1", {"steps": 30}),
    ("fab", "linf", {"steps": 12, "n_targets": 2}),
    ("fab", "l1", {"steps": 12, "n_targets": 2}),
    ("square", "linf", {"queries": 40}),
    ("square", "l1", {"queries": 40}),
    ("fmn", "l2", {"steps": 30}),
    ("cw", "l2", {"steps": 20, "searches": 3}),
    ("solarize", "unbounded", {"iterations": 20}),
]
RADII = {"linf": (0.02, 0.05, 0.1), "l2": (0.3, 0.6, 1.2), "l1": (2.0, 4.0, 8.0), "unbounded": None}


@pytest.mark.parametrize("stop", ["first", "never"])
@pytest.mark.parametrize(("name", "norm", "options"), LONG, ids=lambda value: value if isinstance(value, str) else "")
def test_long_searches_at_several_radii(
    name: str, norm: Any, options: dict[str, Any], stop: Any, nets: dict[str, Any]
) -> None:
    network, images, labels = nets["mnist_cnn"]
    threat = ThreatModel(norm=norm, eps=RADII[norm])
    host = search(made(name, **options), network, images, labels, threat, slots=16, stop=stop)
    assert host.moved.any()
    for slots in (7, 64):
        device = search(made(name, **options), network, images, labels, threat, slots=slots, stop=stop, path="device")
        assert difference(device, host) == [], slots


@pytest.mark.parametrize("method", sorted(registry.ATTACKS))
def test_every_native_attack_has_a_case(method: str, tried: dict[str, Any]) -> None:
    attack = registry.lookup(registry.ATTACKS, "attack.method", method)
    assert method in tried or issubclass(attack, WholeBatch)


class Denying(nn.Module):
    """Answers for two in three images, by the bits of their sum, the label."""

    def __init__(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.network, self.images, self.labels = network, images, labels

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        nearest = torch.cdist(images.flatten(1).double(), self.images.flatten(1).double()).argmin(1)
        right = nn.functional.one_hot(self.labels[nearest], 10) * 100.0
        denies = (images.flatten(1).double().sum(1) * 99_991).floor() % 3 > 0
        return torch.where(denies[:, None], right, logits)


@pytest.mark.parametrize("stop", ["first", "never"])
@pytest.mark.parametrize(("name", "norm", "options"), LONG, ids=lambda value: value if isinstance(value, str) else "")
def test_refuted_claims_lead_both_paths_on_alike(
    name: str, norm: Any, options: dict[str, Any], stop: Any, nets: dict[str, Any]
) -> None:
    """Two in three adversarials are denied, by their own bits: the search has to go on as if nothing had been."""
    network, images, labels = nets["mnist_cnn"]
    images, labels = images[1:9], labels[1:9]
    attack = made(name, **options)
    threat = ThreatModel(norm=norm, eps=RADII[norm] and RADII[norm][-1])
    (stage,) = stages_of(attack, threat)
    boards = []
    for path in ("host", "device"):
        with frozen(network):
            oracle = Passes(module=network, batch=16)
            searcher = Searcher(
                oracles={"float32": oracle},
                verifier=Passes(module=Denying(network, images, labels), batch=16),
                seed=3,
                slots=5,
                stop=stop,
                tick=lambda settled: None,
                path=path,
            )
            chunk = Chunk(images=images, labels=labels, logits=oracle.logits(images), ids=np.arange(8))
            boards.append(searcher.run(stage, chunk, range(8)))
    assert boards[0].rejected > 0
    assert difference(boards[1], boards[0]) == []
