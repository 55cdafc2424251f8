"""The device path judges several iterations at once, and comes to the bits of the host path."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robusteval import registry
from robusteval.attacks.base import Attack
from robusteval.closed_form import small_convnet
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


FEW_AND_MANY: list[tuple[int, Any]] = [(5, "first"), (64, "never")]


@pytest.fixture(scope="module")
def nets() -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    """A random convolutional net and the bundled one, with images and labels, some of them wrong."""
    numbers = torch.Generator().manual_seed(5)
    strokes = (torch.rand(9, 1, 7, 7, generator=numbers) < 0.4).float()
    pictures = {
        "convnet": (small_convnet(classes=5, channels=3), torch.rand(9, 3, 8, 8, generator=numbers)),
        "mnist_cnn": (
            Bundled(name="mnist_cnn").load().module.eval(),
            nn.functional.interpolate(strokes, size=28, mode="bilinear").clamp(0, 1),
        ),
    }
    found = {}
    for name, (network, images) in pictures.items():
        with torch.no_grad():
            logits = network(images)
        labels = logits.argmax(1)
        labels[::9] = (labels[::9] + 1) % logits.shape[1]
        found[name] = (network, images, labels)
    return found


def test_both_paths_give_the_same_bits(case: Any, nets: dict[str, Any]) -> None:
    network, images, labels = nets["convnet"]
    survey = case.attack.columns() is not None
    if getattr(case.attack, "version", "standard") != "standard":
        pytest.skip("one cascade shows how stages follow one another")
    if survey or len(case.attack.stages(case.norm)) > 1:
        images, labels = images[:6], labels[:6]
    for slots, stop in FEW_AND_MANY if case.leads else FEW_AND_MANY[:1]:
        host, device = (
            search(case.attack, network, images, labels, case.threat, slots=slots, stop=stop, path=path)
            for path in ("host", "device")
        )
        assert difference(device, host) == [], (slots, stop)


def made(name: str, **options: Any) -> Attack:
    return registry.lookup(registry.ATTACKS, "attack.method", name)(**options)


# Long enough for full windows, and in the restarts and targets for slots that are filled again in between.
LONG = [
    ("pgd", "linf", {"steps": 21}),
    ("apgd", "linf", {"steps": 20, "loss": "targeted_dlr", "n_targets": 2}),
    ("apgd", "l2", {"steps": 20}),
    ("apgd", "l1", {"steps": 20}),
    ("fab", "linf", {"steps": 9, "n_targets": 2}),
    ("fab", "l1", {"steps": 10, "n_targets": 2}),
    ("square", "linf", {"queries": 30}),
    ("square", "l1", {"queries": 15}),
    ("fmn", "l2", {"steps": 15, "n_targets": 2}),
    ("cw", "l2", {"steps": 20, "searches": 3, "n_targets": 1}),
    ("solarize", "unbounded", {"iterations": 20}),
]
QUICK = ("pgd", "square", "fmn", "solarize")
RADII = {"linf": (0.02, 0.1), "l2": (0.3, 1.2), "l1": (2.0, 8.0), "unbounded": None}


def net_for(name: str) -> str:
    """Return the network that the attack breaks; the smaller one where it does."""
    return "mnist_cnn" if name in ("square", "cw", "solarize") else "convnet"


@pytest.mark.parametrize(
    ("name", "norm", "options"),
    [pytest.param(*search, marks=[] if search[0] in QUICK else pytest.mark.slow) for search in LONG],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_long_searches_at_several_radii(name: str, norm: Any, options: dict[str, Any], nets: dict[str, Any]) -> None:
    network, images, labels = nets[net_for(name)]
    threat = ThreatModel(norm=norm, eps=RADII[norm])
    for slots, stop in FEW_AND_MANY:
        host, device = (
            search(made(name, **options), network, images, labels, threat, slots=slots, stop=stop, path=path)
            for path in ("host", "device")
        )
        assert host.moved.any()
        assert difference(device, host) == [], (slots, stop)


def test_numbers_that_are_not_finite_are_reported_alike(nets: dict[str, Any]) -> None:
    """A third of all points, by their bits, get logits of NaN, and another third a gradient of NaN."""
    network, images, labels = nets["convnet"]
    searches: list[tuple[str, Any, dict[str, Any]]] = [
        ("pgd", "linf", {"steps": 12}),
        ("fab", "l2", {"steps": 4, "n_targets": 2}),
        ("cw", "l2", {"steps": 5, "n_targets": 1}),
        ("noise", "linf", {"queries": 5}),
    ]
    stops: tuple[Any, ...] = ("first", "never")
    paths: tuple[Any, ...] = ("host", "device")
    for name, norm, options in searches:
        threat = ThreatModel(norm=norm, eps=1e-3 if norm == "linf" else 0.02)
        for stop in stops:
            host, device = (
                search(made(name, **options), Brittle(network), images, labels, threat, stop=stop, path=path)
                for path in paths
            )
            assert host.nonfinite.any()
            assert difference(device, host) == [], name


def third(images: Tensor) -> Tensor:
    """Return 0, 1 or 2 [n], by the bits of the sum of each image."""
    return (images.detach().flatten(1).double().sum(1) * 99_991).floor() % 3


class Brittle(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        spoilt = images + (images * 0).abs().sqrt() * (third(images) == 1)[:, None, None, None]  # 0, with slope NaN
        logits = self.network(spoilt)
        return logits.masked_fill((third(images) == 2)[:, None], torch.nan)


class Denying(nn.Module):
    """Answers for two in three images, by the bits of their sum, the label."""

    def __init__(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.network, self.images, self.labels = network, images, labels

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        nearest = torch.cdist(images.flatten(1).double(), self.images.flatten(1).double()).argmin(1)
        right = nn.functional.one_hot(self.labels[nearest], logits.shape[1]) * 100.0
        return torch.where(third(images)[:, None] > 0, right, logits)


@pytest.mark.parametrize(
    ("name", "norm", "options", "stop"),
    [(*one, "first") for one in LONG] + [(*one, "never") for one in LONG if one[0] in ("pgd", "fab")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuted_claims_lead_both_paths_on_alike(
    name: str, norm: Any, options: dict[str, Any], stop: Any, nets: dict[str, Any]
) -> None:
    """Two in three adversarials are denied: the search has to go on as if nothing had been."""
    network, images, labels = nets[net_for(name)]
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
            chunk = Chunk(images=images, labels=labels, logits=oracle.logits(images), ids=np.arange(len(images)))
            boards.append(searcher.run(stage, chunk, range(len(images))))
    assert boards[0].rejected > 0
    assert difference(boards[1], boards[0]) == []
