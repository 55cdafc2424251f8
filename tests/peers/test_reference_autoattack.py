"""AutoAttack by its authors' code, through our engine, against our own, stage by stage on the same images."""

import importlib
from typing import Any

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from robusteval import registry
from robusteval.attacks.reference.autoattack import rescale
from robusteval.engine.direct import search
from robusteval.engine.stages import stages_of
from robusteval.threat import Norm, ThreatModel

pytestmark = pytest.mark.peers

BUDGET = {"steps": 100, "queries": 300}  # of Square's 5000, on both sides


def standing(name: str, digits: tuple[nn.Module, Tensor, Tensor], threat: ThreatModel) -> dict[str, Tensor]:
    """Return who stands [n] at the end of each stage."""
    network, x, y = digits
    attack = registry.lookup(registry.ATTACKS, "attack.method", name)(**BUDGET)
    stands, found = torch.ones(len(x), dtype=torch.bool), {}
    for stage in stages_of(attack, threat):
        board = search(stage.attack, network, x, y, threat, order=stands.nonzero()[:, 0].tolist())
        stands = stands & ~board.broken
        found[stage.name] = stands
        assert threat.contains(board.point, x).all()
        assert board.outside in (None, 0)
    return found


@pytest.mark.timeout(600)  # a minute, on a busy machine several
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.3)])
def test_as_many_stand_at_the_end_of_each_stage(digits: Any, norm: Norm, eps: float) -> None:
    threat = ThreatModel(norm=norm, eps=eps)
    theirs, ours = (standing(name, digits, threat) for name in ("reference/autoattack", "autoattack"))
    assert list(theirs) == list(ours) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    for stage in theirs:
        assert abs(int(theirs[stage].sum()) - int(ours[stage].sum())) <= 1, stage
    last, own = theirs["square"], ours["square"]
    assert 5 < int(last.sum()) < 55, "else nothing is compared"
    only_theirs, only_ours = int((~last & own).sum()), int((last & ~own).sum())
    assert binomtest(only_ours, max(only_ours + only_theirs, 1)).pvalue > 0.01


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.3), ("l2", 2.0), ("l1", 8.0)])
def test_every_part_runs_in_every_norm_and_is_counted(digits: Any, norm: Norm, eps: float) -> None:
    network, x, y = digits[0], digits[1][::10], digits[2][::10]
    threat = ThreatModel(norm=norm, eps=eps)
    attack = registry.lookup(registry.ATTACKS, "attack.method", "reference/autoattack")
    parts = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
    for name, part in attack(version="custom", attacks=parts, steps=5, queries=20).stages(norm):
        board = search(part, network, x, y, threat)
        assert board.outside == 0, name
        assert threat.contains(board.point, x).all()
        # At least a pass for the network's prediction, some of the search, and the verifier's.
        assert board.forward.min() > 5, name
        assert bool(board.backward.any()) == (name != "square"), name


def test_a_standing_image_costs_what_the_publication_says(digits: Any) -> None:
    """APGD of 100 steps: 101 points, forward and back, the clean image once more by itself, and the verifier's pass."""
    network, x, y = digits
    attack = registry.lookup(registry.ATTACKS, "attack.method", "reference/autoattack")
    ((_, part), *_) = attack().stages("linf")
    board = search(part, network, x, y, ThreatModel(norm="linf", eps=0.01))
    assert not board.broken.any()
    assert board.forward.tolist() == [103] * len(x)
    assert board.backward.tolist() == [101] * len(x)


@pytest.mark.parametrize("steps", [1, 7, 40, 100])
def test_fewer_steps_set_the_library_up_as_it_would_itself(steps: int) -> None:
    """Its windows shrink with the steps, which it sees to only where it is made; with windows for 100 steps ten would
    never halve one."""
    module = importlib.import_module("pyautoattack.autopgd_base")
    made, scaled = (module.APGDAttack(None, n_iter=n, norm="L2", eps=1.0) for n in (steps, 100))
    rescale(scaled, steps)
    numbers = [{name: value for name, value in vars(each).items() if isinstance(value, int)} for each in (made, scaled)]
    assert numbers[0] == numbers[1]
    assert {"n_iter", "n_iter_orig", "n_iter_2", "n_iter_min", "size_decr"} <= numbers[0].keys()
