"""The stages of an evaluation: which attack searches which ball, in order.

A list of radii makes ascending stages. What breaks a sample in one ball lies in all larger ones, so the sample is
carried and not attacked again: at every radius, broken is what independent evaluations up to it break together.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from robusteval.attacks.base import Attack
from robusteval.threat import Norm, ThreatModel

Mode = Literal["exact", "fast", "fast+standard"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One attack in one ball. ``name`` is what shards and ``broken_by`` say, ``draws`` what keys its random numbers.

    ``precision`` is that of the search; what it finds is verified in float32 in any case.
    """

    name: str
    draws: str
    attack: Attack
    threat: ThreatModel
    precision: Precision = "float32"


def stages_of(attack: Attack, threat: ThreatModel, mode: Mode = "exact") -> tuple[Stage, ...]:
    """Return the stages in order; each is run on the samples that still stand.

    With ``fast`` they search in bfloat16, with ``fast+standard`` so first and then all of them again in float32, in
    every ball.

    Each radius draws the numbers of an evaluation of its own. A minimum-norm attack needs one search for all radii. A
    ball of radius 0 among others holds the clean image alone, so it needs none.
    """
    parts, balls = _parts(attack, threat.norm, mode), threat.balls()
    if len(balls) == 1 or attack.keeps == "nearest":
        return tuple(dataclasses.replace(part, threat=balls[-1]) for part in parts)
    written = short([ball.radius for ball in balls])
    return tuple(
        dataclasses.replace(part, name=f"{part.name}@{eps}", threat=ball)
        for ball, eps in zip(balls, written, strict=True)
        if ball.radius > 0
        for part in parts
    )


def _parts(attack: Attack, norm: Norm, mode: Mode) -> list[Stage]:
    exact = [Stage(name=name, draws=name, attack=part, threat=ThreatModel()) for name, part in attack.stages(norm)]
    if mode == "exact":
        return exact
    fast = [dataclasses.replace(stage, name=f"fast-{stage.name}", precision="bfloat16") for stage in exact]
    return fast if mode == "fast" else fast + exact


def short(radii: Sequence[float]) -> list[str]:
    """Return different numbers in as few digits, at least six, as tell them apart."""
    for digits in range(6, 18):
        written = [f"{eps:.{digits}g}" for eps in radii]
        if len(set(written)) == len(radii):
            return written
    raise ValueError(f"{list(radii)} names a number twice")
