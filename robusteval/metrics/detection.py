"""Can attacked images be told by how confident the network is? Five scores, each higher on what looks ordinary.

Convention: a clean image is the positive class. The images of both sides are the same ones, so that intervals take them
in pairs.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

from robusteval.metrics.perturbation import number_of
from robusteval.metrics.predictions import Predictions

_Z = 1.959964  # 95 % of a normal distribution


def _margin(predictions: Predictions) -> np.ndarray:
    top = predictions.top_logits.astype(np.float64)
    return top[:, 0] - top[:, 1]


SCORES: dict[str, Callable[[Predictions], np.ndarray]] = {
    "msp": lambda predictions: predictions.confidences,
    "max_logit": lambda predictions: predictions.top_logits[:, 0].astype(np.float64),
    "energy": lambda predictions: predictions.logsumexp,
    "entropy": lambda predictions: -predictions.entropy,
    "margin": _margin,
}
"""Maximum softmax probability, largest logit, -energy (logsumexp), -entropy, and lead of the largest logit."""


def detection(clean: Predictions, attacked: Predictions) -> list[dict]:
    """Return {score, value, low, high, n} of each score: the AUROC of telling clean from attacked images.

    Both are of the same images, row by row; rows whose logits are not finite on either side are left out. None where
    nothing is left, or where not all logits that a score needs were kept.
    """
    usable = clean.usable & attacked.usable
    rows = []
    for name, score in SCORES.items():
        ordinary, strange = score(clean)[usable], score(attacked)[usable]
        known = bool(len(ordinary)) and bool(np.isfinite(ordinary).all() and np.isfinite(strange).all())
        value, low, high = paired_auroc(ordinary, strange) if known else (np.nan, np.nan, np.nan)
        rows.append(
            {
                "score": name,
                "value": number_of(value),
                "low": number_of(low),
                "high": number_of(high),
                "n": int(usable.sum()),
            }
        )
    return rows


def paired_auroc(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float, float]:
    """Return the AUROC of scores [n] and [n] of the same n images under two conditions, and its 95 % interval.

    The structural components of DeLong et al. 1988 (https://doi.org/10.2307/2531595), added up image by image since the
    two scores of one image go together (Obuchowski 1997, https://doi.org/10.2307/2533958).
    """
    above, below = _components(positive, negative)
    n, value = len(positive), float(above.mean())
    if n < 2:
        return value, 0.0, 1.0
    half = _Z * float((above + below).std(ddof=1)) / n**0.5
    return value, max(value - half, 0.0), min(value + half, 1.0)


def auroc_interval(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float, float]:
    """Return the AUROC of scores [n] for flags [n], both kinds present, and its 95 % interval (DeLong et al. 1988)."""
    above, below = _components(scores[positive], scores[~positive])
    value = float(above.mean())
    variance = sum(float(part.var(ddof=1)) / len(part) for part in (above, below) if len(part) > 1)
    half = _Z * variance**0.5
    return value, max(value - half, 0.0), min(value + half, 1.0)


def _components(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each positive, the share of negatives that it outscores, and for each negative of positives above.

    Ties count one half.
    """
    everything = rankdata(np.concatenate([positive, negative]))
    p, n = len(positive), len(negative)
    above = (everything[:p] - rankdata(positive)) / n
    below = 1 - (everything[p:] - rankdata(negative)) / p
    return above, below
