"""What a model is like, seen on a few images before anything is counted: facts that could make the number meaningless.

The facts go into run.json; ``checks`` judges them. The first three are those that AutoAttack looks for (Croce & Hein
2020, https://arxiv.org/abs/2003.01690): randomised networks, probabilities instead of logits, gradients that are zero.
"""

from typing import Any

import torch
from torch import Tensor

from robusteval.attacks import losses
from robusteval.attacks.base import Query, rows
from robusteval.attacks.geometry import total
from robusteval.engine.passes import QUANTUM, Passes

# By how much of their spread logits should move between the two points of a difference quotient: far more than float32
# rounding, far less than it takes to leave the neighbourhood in which a gradient says something.
_MOVE = 0.02
_FARTHEST = 0.01  # grey values in [0, 1]
_TOLERANCE = 1e-5  # of probabilities, and of what counts as the same answer
_BITS = 100  # of the last kind: rounding within a network
_NUDGE = 1e-4  # in [0, 1]: far below a grey value, far above rounding


def look(passes: Passes, images: Tensor, labels: Tensor, *, gradients: bool) -> dict[str, Any]:
    """Return the facts about the model on images [n, C, H, W] with labels [n], n of about 32.

    ``deterministic``: the same images get the same logits twice. ``batch_dependence``: the largest change of a logit of
    the first image by other neighbours in the batch, in spreads of the logits (None where randomised). ``outputs``:
    logits, probabilities or log_probabilities. ``constant``: all images get the same logits. ``unmoved``: how many
    images keep their logits to the last bit when every value moves by 1e-4 (None where randomised).

    With ``gradients``: ``zero_gradients``, how many images have a gradient of nothing but zeros,
    ``misleading_gradients``, for how many the logits do not move as the gradient says, to within a factor of 2 (None
    where randomised), and ``saturated``, how many have a gradient, but none of the cross-entropy.
    """
    logits = passes.logits(images)
    steady = deterministic(passes, images, logits)
    facts: dict[str, Any] = {
        "images": len(images),
        "deterministic": steady,
        "batch_dependence": _batch_dependence(passes, images, logits) if steady else None,
        "outputs": _outputs(logits),
        "constant": bool((logits == logits[:1]).all()) and len(logits) > 1,
        "unmoved": _unmoved(passes, images, logits) if steady else None,
    }
    if gradients:
        facts |= _gradients(passes, images, logits, labels, deterministic=steady)
    return facts


def deterministic(passes: Passes, images: Tensor, logits: Tensor | None = None) -> bool:
    """Return whether images [n, C, H, W] get the same logits twice (``logits`` are the first answer, where known)."""
    first = passes.logits(images) if logits is None else logits
    return torch.allclose(first, passes.logits(images), rtol=0, atol=0, equal_nan=True)


def _spread(logits: Tensor) -> float:
    return max(float(logits.double().std(1).nan_to_num(0, 0, 0).median()), 1e-12)


def _batch_dependence(passes: Passes, images: Tensor, logits: Tensor) -> float:
    """Compare the first answer beside other images with that beside copies of the image itself."""
    alone = passes.logits(images[:1].expand(QUANTUM, *images.shape[1:]))[0]
    return float((alone - logits[0]).abs().nan_to_num(0).max()) / _spread(logits)


def _outputs(logits: Tensor) -> str:
    values = logits.double()
    sums_to_one = bool(((values.sum(1) - 1).abs() < _TOLERANCE).all())
    if sums_to_one and bool((values > -_TOLERANCE).all()):
        return "probabilities"
    if bool((values <= _TOLERANCE).all()) and bool((values.logsumexp(1).abs() < _TOLERANCE).all()):
        return "log_probabilities"
    return "logits"


def _unmoved(passes: Passes, images: Tensor, logits: Tensor) -> int:
    """Count the images whose logits stay the same when every value moves a little: up or down, and into the box."""
    pattern = torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images) - 0.5
    towards = torch.where(images + pattern.sign() * _NUDGE > 1, -1, torch.where(images < _NUDGE, 1, pattern.sign()))
    moved = passes.logits(images + towards * _NUDGE * (0.5 + pattern.abs()))
    return int((moved == logits).all(1).sum())


def _gradients(
    passes: Passes, images: Tensor, logits: Tensor, labels: Tensor, *, deterministic: bool
) -> dict[str, int | None]:
    """Hold the gradient of a difference of two logits against a difference quotient along its signs.

    Of two logits, since a loss may be flat where a network is sure; from points a little inside the box, since a
    network may clamp its input.
    """
    top = logits.nan_to_num(-torch.inf).topk(2, 1).indices
    other = torch.where(top[:, 0] == labels, top[:, 1], top[:, 0])

    def lead(z: Tensor, rows: slice = slice(None)) -> Tensor:
        return (z.gather(1, other[rows, None]) - z.gather(1, labels[rows, None]))[:, 0]

    points = images.clamp(_FARTHEST, 1 - _FARTHEST)
    parts = [slice(at, at + passes.batch) for at in range(0, len(points), passes.batch)]
    slope = torch.cat([passes.ask(Query(points=points[p], loss=lambda z, p=p: lead(z, p))).slope for p in parts])
    steep = total(slope.abs().double())

    def entropy(z: Tensor, rows: slice) -> Tensor:
        return losses.cross_entropy(z, labels[rows])

    flat = [passes.ask(Query(points=points[p], loss=lambda z, p=p: entropy(z, p))).slope for p in parts]
    silent = total(torch.cat(flat).abs().double()) == 0
    facts: dict[str, int | None] = {
        "zero_gradients": int((steep == 0).sum()),
        "misleading_gradients": None,
        "saturated": int(((steep > 0) & silent).sum()),
    }
    if deterministic:
        step = (_MOVE * _spread(logits) / 2 / steep.clamp(min=1e-30)).clamp(max=_FARTHEST)
        way = slope.sign() * rows(step.float(), slope)
        rise = (lead(passes.logits(points + way)) - lead(passes.logits(points - way))).double()
        due = 2 * step * steep
        ratio = rise / due
        # What an untrained network's logits move by may be less than their last bits: nothing is to be seen there.
        blur = _BITS * torch.finfo(torch.float32).eps * logits.double().abs().nan_to_num(0, 0, 0).amax(1)
        seen = (steep > 0) & ((due > blur) | (rise.abs() > blur))
        facts["misleading_gradients"] = int((seen & ~((ratio > 0.5) & (ratio < 2))).sum())
    return facts
