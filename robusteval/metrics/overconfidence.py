"""Over- and underconfidence with intervals, and whether one network is less overconfident than another.

Definitions of Grabinski et al. 2022 (https://arxiv.org/abs/2210.05938): overconfidence E[z | wrong] and underconfidence
E[1 - z | right] of confidence z. Intervals are bootstrapped over images; differences over the images of both networks
together, so that what both find hard does not blur them.
"""

from collections.abc import Callable

import numpy as np

from robusteval.metrics.calibration import BINS, bin_of
from robusteval.metrics.detection import auroc_interval
from robusteval.metrics.perturbation import interval, number_of
from robusteval.metrics.predictions import Predictions

QUANTITIES = ("accuracy", "confidence", "gap", "overconfidence", "underconfidence", "ece")
"""Accuracy, mean confidence, their difference (positive where overconfident), E[z | wrong], E[1 - z | right], ECE."""


def measured(predictions: Predictions, seed: int) -> dict:
    """Return {value, low, high} of every quantity, and of ``error_auroc``, on the rows whose logits are finite.

    ``error_auroc`` is that of confidence for right answers. A percentile interval of the ECE lies above its value where
    bins are small, since resampling adds its own scatter.
    """
    kept = predictions.finite()
    found = {name: _interval(kept, name, seed) for name in QUANTITIES}
    right = kept.correct
    if right.any() and not right.all():
        value, low, high = auroc_interval(kept.confidences, right)
    else:
        value = low = high = np.nan
    found["error_auroc"] = {"value": number_of(value), "low": number_of(low), "high": number_of(high)}
    return found


def difference(one: Predictions, other: Predictions, name: str, seed: int) -> dict:
    """Return {value, low, high} of a quantity of ``one`` less that of ``other``, two networks on the same images."""
    usable = one.usable & other.usable
    columns = [_columns(part.take(usable)) for part in (one, other)]
    width = columns[0].shape[1]
    statistic = _STATISTICS[name]
    return interval(np.hstack(columns), lambda sums: statistic(sums[:, :width]) - statistic(sums[:, width:]), seed)


def _interval(kept: Predictions, name: str, seed: int) -> dict:
    if not len(kept):
        return {"value": None, "low": None, "high": None}
    return interval(_columns(kept), _STATISTICS[name], seed)


def _columns(kept: Predictions) -> np.ndarray:
    """Return what every quantity is a function of the sums of: 1, right, z, z of the wrong, and z - right by bin."""
    z, right = kept.confidences, kept.correct.astype(np.float64)
    by_bin = np.zeros((len(kept), BINS))
    by_bin[np.arange(len(kept)), bin_of(z)] = z - right
    return np.hstack([np.stack([np.ones_like(z), right, z, z * (1 - right)], axis=1), by_bin])


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)


_STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": lambda sums: _over(sums[:, 1], sums[:, 0]),
    "confidence": lambda sums: _over(sums[:, 2], sums[:, 0]),
    "gap": lambda sums: _over(sums[:, 2] - sums[:, 1], sums[:, 0]),
    "overconfidence": lambda sums: _over(sums[:, 3], sums[:, 0] - sums[:, 1]),
    "underconfidence": lambda sums: _over(sums[:, 1] - sums[:, 2] + sums[:, 3], sums[:, 1]),
    "ece": lambda sums: _over(np.abs(sums[:, 4:]).sum(axis=1), sums[:, 0]),
}
