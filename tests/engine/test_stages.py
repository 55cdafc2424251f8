"""A list of radii makes ascending stages with the random numbers of evaluations of their own."""

import pytest

from robusteval.attacks.fmn import FMN
from robusteval.attacks.none import NoAttack
from robusteval.attacks.pgd import PGD
from robusteval.engine.stages import short, stages_of
from robusteval.threat import ThreatModel


def test_one_stage_for_each_radius() -> None:
    stages = stages_of(PGD(), ThreatModel(norm="linf", eps=(0.3, 0.1), goal="top5"))
    assert [(stage.name, stage.draws, stage.threat.eps) for stage in stages] == [
        ("pgd@0.1", "pgd", 0.1),
        ("pgd@0.3", "pgd", 0.3),
    ]
    assert {stage.threat.goal for stage in stages} == {"top5"}
    (alone,) = stages_of(PGD(), ThreatModel(norm="linf", eps=0.1))
    assert (alone.name, alone.draws) == ("pgd", "pgd")


def test_the_ball_of_radius_0_among_others_needs_no_search() -> None:
    assert [stage.name for stage in stages_of(PGD(), ThreatModel(eps=(0.0, 0.1, 0.2)))] == ["pgd@0.1", "pgd@0.2"]
    assert [stage.name for stage in stages_of(PGD(), ThreatModel(eps=0.0))] == ["pgd"]


def test_a_minimum_norm_attack_searches_once_for_all_radii() -> None:
    (stage,) = stages_of(FMN(), ThreatModel(norm="l2", eps=(0.5, 0.0, 2.0)))
    assert (stage.name, stage.threat) == ("fmn", ThreatModel(norm="l2", eps=2.0))


def test_an_attack_without_stages_has_none_at_any_radius() -> None:
    assert stages_of(NoAttack(), ThreatModel(eps=(0.1, 0.2))) == ()


def test_names_tell_close_radii_apart() -> None:
    assert short([2 / 255, 8 / 255]) == ["0.00784314", "0.0313725"]
    assert short([0.1, 0.1 + 1e-9]) == ["0.1", "0.100000001"]
    assert len(set(short([0.3, 0.1 + 0.2]))) == 2
    with pytest.raises(ValueError, match="twice"):
        short([0.1, 0.1])
