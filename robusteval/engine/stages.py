"""The stages of an evaluation: which attack searches which ball, in order.

A list of radii makes ascending stages. What breaks a sample in one ball lies in all larger ones, so the sample is
carried and not attacked again: at every radius, broken is what independent evaluations up to it break together.
"""

from collections.abc import Sequence
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
    """Return the stages in order; each is run on the samples that still stand.

    Each radius draws the numbers of an evaluation of its own. A minimum-norm attack needs one search for all radii. A
    ball of radius 0 among others holds the clean image alone, so it needs none.
    """
    parts, balls = attack.stages(threat.norm), threat.balls()
    if len(balls) == 1 or attack.keeps == "nearest":
        return tuple(Stage(name=name, draws=name, attack=part, threat=balls[-1]) for name, part in parts)
    written = short([ball.radius for ball in balls])
    return tuple(
        Stage(name=f"{name}@{eps}", draws=name, attack=part, threat=ball)
        for ball, eps in zip(balls, written, strict=True)
        if ball.radius > 0
        for name, part in parts
    )


def short(radii: Sequence[float]) -> list[str]:
    """Return different numbers in as few digits, at least six, as tell them apart."""
    for digits in range(6, 18):
        written = [f"{eps:.{digits}g}" for eps in radii]
        if len(set(written)) == len(radii):
            return written
    raise ValueError(f"{list(radii)} names a number twice")
