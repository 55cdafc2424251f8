"""The cascade: which stages, with which budgets, in which order; against the reference implementation's own."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks.apgd import APGD
from robusteval.attacks.autoattack import AutoAttack
from robusteval.attacks.base import Attack
from robusteval.attacks.fab import FAB
from robusteval.attacks.square import Square
from robusteval.engine.direct import search
from robusteval.threat import ThreatModel

NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def described(norm: str, version: Any) -> list[tuple[Any, ...]]:
    """Return (stage, steps or queries, restarts, targets, eot, large-eps schedule in this norm) of our stages."""
    found = []
    for name, attack in AutoAttack(version=version).stages(norm):
        if isinstance(attack, APGD):
            targets = attack.n_targets if attack.loss == "targeted_dlr" else None
            large = norm == "l1" and attack.large_eps
            found.append((name, attack.steps, attack.n_restarts, targets, attack.eot, large))
        elif isinstance(attack, FAB):
            found.append(
                (name, attack.steps, attack.n_restarts, attack.n_targets if attack.targeted else None, 1, False)
            )
        else:
            assert isinstance(attack, Square)
            found.append((name, attack.queries, 1, None, 1, False))
    return found


@pytest.mark.parametrize("norm", NAMES)
def test_the_standard_is_the_published_one(norm: str) -> None:
    l1 = norm == "l1"
    assert described(norm, "standard") == [
        ("apgd-ce", 100, 5 if l1 else 1, None, 1, l1),
        ("apgd-t", 100, 1, 5 if l1 else 9, 1, l1),
        ("fab-t", 100, 1, 9, 1, False),
        ("square", 5000, 1, None, 1, False),
    ]


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
@pytest.mark.parametrize("norm", NAMES)
def test_stages_and_budgets_are_upstreams(norm: str, version: Any) -> None:
    module = pytest.importorskip("pyautoattack.autoattack", reason="the reference is in the peers' environment")
    theirs = module.AutoAttack(nn.Identity(), norm=NAMES[norm], version=version)
    due = []
    for name in theirs.attacks_to_run:
        attack = {"apgd-t": theirs.apgd_targeted, "square": theirs.square}.get(name)
        attack = attack or (theirs.fab if name.startswith("fab") else theirs.apgd)
        if name == "square":
            due.append((name, attack.n_queries, 1, None, 1, False))
            continue
        targets = attack.n_target_classes if name.endswith("-t") else None
        restarts = 1 if name == "fab-t" else attack.n_restarts  # which upstream sets when it comes to it
        eot = getattr(attack, "eot_iter", 1)
        due.append((name, attack.n_iter, restarts, targets, eot, getattr(attack, "use_largereps", False)))
    assert described(norm, version) == due


def test_cheaper_budgets_are_not_the_published_ones() -> None:
    assert AutoAttack().published()
    assert not AutoAttack(queries=100).published()
    assert not AutoAttack(steps=20).published()


def test_too_few_or_too_many_classes() -> None:
    assert [AutoAttack(version=version).min_classes() for version in ("standard", "plus", "rand")] == [4, 4, 3]
    assert [AutoAttack(version=version).max_classes() for version in ("standard", "plus", "rand")] == [None, 100, None]


@dataclass(frozen=True, kw_only=True)
class Alone(Attack):
    """One stage of a cascade by itself, under its name there, so that it draws the same numbers."""

    stage: tuple[str, Attack]

    def stages(self, norm: str) -> tuple[tuple[str, Attack], ...]:
        return (self.stage,)


def test_a_cascade_breaks_the_union_of_what_its_stages_break(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    """Exactly, since what a stage does to an image depends on no other image and no other stage."""
    network, images, labels = digits
    threat = ThreatModel(norm="linf", eps=0.34)
    attack = AutoAttack(steps=6, queries=40)
    union = torch.zeros(len(images), dtype=torch.bool)
    counts = []
    for stage in attack.stages("linf"):
        broken = search(Alone(stage=stage), network, images, labels, threat).broken
        union |= broken
        counts.append(int(broken.sum()))
    whole = search(attack, network, images, labels, threat)
    assert torch.equal(whole.broken, union)
    assert len(set(counts)) > 1, "stages that break the same prove nothing"
    assert max(counts) < len(images)
