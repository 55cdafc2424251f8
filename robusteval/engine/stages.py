"""The stages of an evaluation: which attack searches which ball, in order."""

from dataclasses import dataclass

from robusteval.attacks.base import Attack
from robusteval.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One attack in one ball. ``name`` is what shards and ``broken_by`` say, ``draws`` what keys its random numbers."""

    name: str
    draws: str
    attack: Attack
    threat: ThreatModel


def stages_of(attack: Attack, threat: ThreatModel) -> tuple[Stage, ...]:
    """Return the stages in order; each is run on the samples that still stand."""
    return tuple(Stage(name=name, draws=name, attack=part, threat=threat) for name, part in attack.stages(threat.norm))
