"""Each part of AutoAttack on its own, on all of 200 images that a network gets right, against its authors' code.

Run by hand (-m real) in the peers' environment; ResNet-2B where the data of ``../shared`` are.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from robusteval import registry
from robusteval.engine.direct import search
from robusteval.engine.stages import stages_of
from robusteval.threat import ThreatModel
from tests.bench import nets

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
QUERIES = 1000
PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")


@pytest.fixture(scope="module", params=[("mnist_cnn_at", 0.3), ("resnet2b", 8 / 255)], ids=lambda param: param[0])
def problem(request: pytest.FixtureRequest) -> tuple[nets.Net, ThreatModel]:
    name, eps = request.param
    if (absent := nets.lacking(name, SHARED)) is not None:
        pytest.skip(f"{absent} is absent")
    return nets.load(name, 200, SHARED).right(200), ThreatModel(norm="linf", eps=eps)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_alone_breaks_as_many_as_the_authors_but_for_one(part: str, problem: tuple[nets.Net, Any]) -> None:
    pytest.importorskip("pyautoattack")
    net, threat = problem
    broken = {}
    for name in ("reference/autoattack", "autoattack"):
        attack = registry.lookup(registry.ATTACKS, "attack.method", name)(queries=QUERIES)
        (stage,) = (stage for stage in stages_of(attack, threat) if stage.name == part)
        everyone = list(range(len(net.images)))
        broken[name] = search(stage.attack, net.module, net.images, net.labels, threat, order=everyone).broken
    ours, theirs = int(broken["autoattack"].sum()), int(broken["reference/autoattack"].sum())
    print(f"{net.name}, {part} alone, of {len(net.images)}: ours breaks {ours}, the authors' {theirs}")
    assert ours >= theirs - 1
    assert 0 < int(torch.minimum(broken["autoattack"], broken["reference/autoattack"]).sum()) < len(net.images)
