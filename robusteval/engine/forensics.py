"""What a unit of work notes of its perturbations, while model, clean and attacked images are at hand."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from robusteval.attacks.base import Attack, Query
from robusteval.config import Config
from robusteval.engine.passes import Passes
from robusteval.evidence.forensics import SIDES, Tensors
from robusteval.metrics import perturbation
from robusteval.metrics.perturbation import Shapes, ring_sums
from robusteval.threat import ThreatModel

ROUNDED, SALIENT = 1000, 256
"""About how many adversarials of a run are rounded to 8 bits and predicted again, and how many get their saliency."""
_SHARE = {"rounded": 4, "salient": 16}  # at most one in so many of the images that a stage searches, but a few anyway
_FEW = 16
_AT_ONCE = 32  # images in float64


def planned(config: Config) -> dict[str, object]:
    """Return what run.json says of the notes: how many a chunk, and a ``reason`` where there will be none."""
    reason = None
    if not config.attack.stages(config.threat.norm):
        reason = "there is no attack"
    elif config.evidence.keep == "none":
        reason = "evidence=none keeps no adversarial"
    elif config.attack.universal():
        reason = "one transform for all images is chosen after the last of them"
    return {"reason": reason, "rounded": ROUNDED, "salient": SALIENT}


def quota(kind: str, total: int, chunks: int, searched: int) -> int:
    """Return how many adversarials of a chunk and stage that searched so many images take part: the first ones."""
    return min(-(-total // chunks), max(_FEW, searched // _SHARE[kind]))


def noted(
    attack: Attack,
    passes: Passes,
    threat: ThreatModel,
    clean: Tensor,
    attacked: Tensor,
    labels: Tensor,
    ids: np.ndarray,
    *,
    rounded: int,
    salient: int,
) -> Tensors:
    """Return the notes on adversarials [n, C, H, W] of images of labels [n]; nothing of none.

    The first ``rounded`` of them are rounded to 8 bits and predicted again. Of the first ``salient`` the gradient of
    the largest logit is noted, on both sides: only of attacks by gradients, since others also run on networks that have
    none.
    """
    if not len(ids):
        return {}
    parts = [
        Shapes.of(attacked[block].double().cpu().numpy() - clean[block].double().cpu().numpy())
        for block in _blocks(len(ids))
    ]
    found: dict[str, np.ndarray] = {"id": ids.astype(np.int64), **perturbation.as_arrays(Shapes.joined(parts))}
    eight_bit = (attacked[:rounded] * 255).round() / 255
    found["rounded_id"] = found["id"][:rounded]
    found["rounded_broken"] = threat.broken(passes.logits(eight_bit), labels[:rounded]).cpu().numpy().astype(np.uint8)
    if attack.gradients and salient:
        found["saliency_id"] = found["id"][:salient]
        for side, images in zip(SIDES, (clean[:salient], attacked[:salient]), strict=True):
            maps = saliency(passes, images)
            found[f"saliency_{side}_mass"] = maps.sum(axis=(1, 2))
            found[f"saliency_{side}_rings"] = ring_sums(maps)
            found[f"saliency_{side}_total"] = maps.sum(axis=0)
    return found


def saliency(passes: Passes, images: Tensor) -> np.ndarray:
    """Return the largest |d max logit / d x| over the channels, [n, H, W] float64 (Gavrikov & Keuper 2023)."""
    slopes = [
        passes.ask(Query(points=part, loss=lambda logits: logits.amax(1))).slope for part in images.split(passes.batch)
    ]
    return torch.cat(slopes).nan_to_num(0, 0, 0).abs().amax(1).double().cpu().numpy()


def _blocks(n: int) -> Sequence[slice]:
    return [slice(begin, begin + _AT_ONCE) for begin in range(0, n, _AT_ONCE)]
