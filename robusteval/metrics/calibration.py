"""Calibration: does a confidence of 80 % mean that 80 % of such answers are right?

Expected calibration error of order p, over- and underconfidence as in Grabinski et al. 2022
(https://arxiv.org/abs/2210.05938); 15 bins of equal width on the maximum softmax probability.
"""

import numpy as np

from robusteval.metrics.predictions import Predictions

BINS = 15


def calibration(predictions: Predictions) -> dict:
    """Return the calibration of predictions on the rows whose logits are finite; numbers are None where there is none.

    ``ece``, ``mce`` and ``rmsce``: mean, largest and root mean square gap between confidence and accuracy of the bins.
    ``adaptive_ece``, ``classwise_ece``, ``top_label_brier``: see the functions below.
    ``nll`` (nats) and ``brier`` (0 to 2): the proper scores over all classes.
    ``confidence_gap``: mean confidence less accuracy, positive where overconfident.
    ``overconfidence`` E[z | wrong] and ``underconfidence`` E[1 - z | right] of confidence z:
    |overconfidence P(wrong) - underconfidence P(right)| = |confidence_gap| <= ece.
    ``n`` rows used, ``nonfinite`` rows left out, ``reliability`` the bins that are not empty.
    """
    kept = predictions.finite()
    z, correct = kept.confidences, kept.correct
    bins = reliability(z, correct)
    weights = np.array([row["n"] for row in bins]) / max(len(kept), 1)
    gaps = np.array([abs(row["confidence"] - row["accuracy"]) for row in bins])
    some = len(kept) > 0
    return {
        "ece": float((weights * gaps).sum()) if some else None,
        "mce": float(gaps.max()) if some else None,
        "rmsce": float(np.sqrt((weights * gaps**2).sum())) if some else None,
        "adaptive_ece": adaptive_ece(z, correct) if some else None,
        "classwise_ece": classwise_ece(kept) if some else None,
        "nll": float((kept.logsumexp - kept.label_logit).mean()) if some else None,
        "brier": float((kept.sum_p2 - 2 * np.exp(kept.label_logit - kept.logsumexp) + 1).mean()) if some else None,
        "top_label_brier": top_label_brier(z, correct) if some else None,
        "confidence_gap": float(z.mean() - correct.mean()) if some else None,
        "overconfidence": float(z[~correct].mean()) if not correct.all() else None,
        "underconfidence": float((1 - z[correct]).mean()) if correct.any() else None,
        "n": len(kept),
        "nonfinite": len(predictions) - len(kept),
        "reliability": bins,
    }


def bin_of(z: np.ndarray) -> np.ndarray:
    """Return the bin 0 ... 14 of each probability: bins (lo, hi] of equal width, 0 belongs to the first."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], z, side="left")


def reliability(z: np.ndarray, correct: np.ndarray) -> list[dict]:
    """Return the bins {low, high, n, confidence, accuracy} of confidences [n], the lowest first, without empty ones."""
    edges, index = np.linspace(0, 1, BINS + 1), bin_of(z)
    rows = []
    for b in np.unique(index):
        inside = index == b
        rows.append(
            {
                "low": float(edges[b]),
                "high": float(edges[b + 1]),
                "n": int(inside.sum()),
                "confidence": float(z[inside].mean()),
                "accuracy": float(correct[inside].mean()),
            }
        )
    return rows


def adaptive_ece(z: np.ndarray, correct: np.ndarray) -> float:
    """Return the ECE over 15 bins of equal mass (Nixon et al. 2019, https://arxiv.org/abs/1904.01685).

    Samples of equal confidence may fall on both sides of an edge, so each carries the accuracy of all of them: the
    result does not depend on the order of the samples.
    """
    _, group = np.unique(z, return_inverse=True)
    accuracy = (np.bincount(group, weights=correct) / np.bincount(group))[np.sort(group)]
    gap = np.sort(z) - accuracy
    return float(sum(abs(part.sum()) for part in np.array_split(gap, BINS)) / len(z))


def classwise_ece(predictions: Predictions) -> float | None:
    """Return the ECE of every class against the rest, averaged over the classes; None where not every logit was kept.

    The "static calibration error" of Nixon et al. 2019: low probabilities count too, not only the predicted class's.
    """
    p = predictions.probabilities()
    if p is None:
        return None
    total = 0.0
    for c in range(predictions.classes):
        gaps = np.bincount(bin_of(p[:, c]), weights=p[:, c] - (predictions.labels == c), minlength=BINS)
        total += float(np.abs(gaps).sum()) / len(p)
    return total / predictions.classes


def top_label_brier(z: np.ndarray, correct: np.ndarray) -> dict:
    """Return the Brier score of the binary event "the prediction is right", decomposed over the bins.

    score = reliability - resolution + uncertainty + within_bin, exactly: Murphy 1973, with the two terms of forecasts
    that vary inside a bin (Stephenson, Coelho and Jolliffe 2008, https://doi.org/10.1175/2007WAF2006116.1) in one.
    ``reliability`` is the squared rmsce.
    """
    _, group = np.unique(bin_of(z), return_inverse=True)
    n = np.bincount(group)
    mean_z, mean_right = np.bincount(group, weights=z) / n, np.bincount(group, weights=correct) / n
    within = (z - mean_z[group]) ** 2 - 2 * (z - mean_z[group]) * (correct - mean_right[group])
    base = correct.mean()
    return {
        "score": float(((z - correct) ** 2).mean()),
        "reliability": float((n * (mean_z - mean_right) ** 2).sum() / len(z)),
        "resolution": float((n * (mean_right - base) ** 2).sum() / len(z)),
        "uncertainty": float(base * (1 - base)),
        "within_bin": float(within.mean()),
    }
