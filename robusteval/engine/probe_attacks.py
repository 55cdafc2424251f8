"""What cheap attacks do to a few images: by them a run's own attack is judged afterwards.

Each is an attack of ours, run by the engine and verified like any other, on images whose ids are noted with what came
of them. A run whose attack leaves standing what one of these breaks is misled or too weak.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from robusteval.attacks.apgd import APGD
from robusteval.attacks.base import Attack
from robusteval.attacks.fgsm import FGSM
from robusteval.attacks.noise import Noise
from robusteval.engine.jobs import Chunk
from robusteval.engine.passes import QUANTUM, Passes
from robusteval.engine.search import Searcher
from robusteval.engine.stages import Stage
from robusteval.threat import ThreatModel

_EVERYTHING = ThreatModel(norm="linf", eps=1.0)


def look(
    passes: Passes,
    images: Tensor,
    labels: Tensor,
    logits: Tensor,
    ids: np.ndarray,
    threat: ThreatModel,
    *,
    seed: int,
    gradients: bool,
    strict: bool,
) -> dict[str, Any]:
    """Return {probe: {ids, broken, loss}} on those images [n, C, H, W] that are right; labels and ``ids`` are [n].

    ``noise`` and ``single_step`` search the (largest) ball of ``threat``. ``unbounded`` searches the whole box, of
    which nothing should be left standing, and ``wider`` a ball of twice the radius. ``broken`` are ids, ``loss`` is the
    cross-entropy (nats) at the kept point of each image. Without ``gradients`` there is but noise.
    """
    right = (~threat.broken(logits, labels)).nonzero()[:, 0]
    if not len(right):
        return {}
    kept = right.cpu().numpy()
    chunk = Chunk(images=images[right], labels=labels[right], logits=logits[right], ids=ids[kept])
    found = {}
    for name, attack, ball in _probes(threat, gradients=gradients, strict=strict):
        few = range(len(right) if strict or ball.radius <= threat.radius else min(len(right), QUANTUM))
        searcher = searcher_of(passes, seed)
        board = searcher.run(Stage(name=name, draws=f"probe-{name}", attack=attack, threat=ball), chunk, few)
        looked, broken = chunk.ids[: len(few)], board.broken.cpu().numpy()[: len(few)]
        found[name] = {
            "ids": looked.tolist(),
            "broken": looked[broken].tolist(),
            "loss": [round(loss, 6) if np.isfinite(loss) else None for loss in board.loss[: len(few)].tolist()],
        }
    return found


def _probes(threat: ThreatModel, *, gradients: bool, strict: bool) -> Iterator[tuple[str, Attack, ThreatModel]]:
    ball = threat.balls()[-1]
    yield "noise", Noise(queries=100 if strict else 2), ball
    if gradients and threat.norm in FGSM.norms:
        yield "single_step", FGSM(), ball
    if gradients:
        yield "unbounded", APGD(steps=100 if strict else 10), replace(_EVERYTHING, goal=threat.goal)
    if gradients and strict:
        yield "wider", APGD(steps=100), replace(ball, eps=2 * ball.radius)


def searcher_of(passes: Passes, seed: int) -> Searcher:
    """Return a searcher whose attacks and verifier both ask ``passes``."""
    return Searcher(
        oracles={"float32": passes}, verifier=passes, seed=seed, slots=passes.batch, stop="first", tick=lambda _: None
    )
