"""The look at the model and its images before a run: every fact that checks judge, as run.json keeps it."""

from typing import Any

import numpy as np
import torch

from robusteval.engine import planted, probe, probe_attacks, probe_forward, probe_input
from robusteval.engine.passes import QUANTUM, frozen
from robusteval.engine.session import Session
from robusteval.engine.transfer import to_device

_LOOKED_AT = 2 * QUANTUM


def look(session: Session, *, gradients: bool) -> dict[str, Any]:
    """Return the facts for ``checks.level``; with ``off`` only what the engine itself must know.

    On images spread over the dataset, whose order may be that of its classes.
    """
    config, dataset, level = session.config, session.dataset, session.config.checks.level
    positions, images, labels = _images(session, _LOOKED_AT)
    passes = session.passes
    if level == "off":
        return {"images": len(images), "deterministic": probe.deterministic(passes, images)}
    facts = probe.look(passes, images, labels, gradients=gradients)
    facts["forward"] = _forward(session, images[:QUANTUM])
    logits = passes.logits(images)
    facts["input"] = probe_input.look(passes, images, labels, logits)
    if facts["input"]["normalisations"]:  # it takes more images to be sure that a normalisation is wrong
        _, others, theirs = _images(session, 2 * _LOOKED_AT)
        facts["input"] = probe_input.look(passes, others, theirs, passes.logits(others))
    facts["shape"] = list(images.shape[1:])
    searched = not config.attack.own_set and config.threat.norm != "unbounded"
    if not facts["deterministic"] or not searched or config.threat.radius == 0:
        return facts
    ids, strict = dataset.ids[positions], level == "strict"
    facts["probes"] = probe_attacks.look(
        passes, images, labels, logits, ids, config.threat, seed=config.seed, gradients=gradients, strict=strict
    )
    if strict:
        facts["planted"] = planted.look(session, images, ids, climb=gradients)
    return facts


def _forward(session: Session, images: torch.Tensor) -> dict[str, Any]:
    """Look at a forward pass after one more eval(), and leave the module as it was before."""
    with frozen(session.passes.module):
        return probe_forward.look(session.passes.module, images)


def _images(session: Session, many: int) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Return the positions of so many images, spread over the dataset, and those with their labels on the device."""
    dataset = session.dataset
    many = min(len(dataset), many)
    last = many - 1 if session.config.stop.asked else len(dataset) - 1  # in random order spread anyway
    positions = np.linspace(0, last, many).round().astype(np.int64)
    return (
        positions,
        to_device(dataset.images(positions), session.device),
        to_device(dataset.labels[positions], session.device),
    )
