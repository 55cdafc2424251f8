"""Can the confidence tell right answers from wrong ones? Ranking metrics of the maximum softmax probability.

Convention: a correct prediction is the positive class and the confidence its score (Hendrycks and Gimpel 2017,
https://arxiv.org/abs/1610.02136). Samples of equal confidence are never put in an order, so ties are exact.
"""

import numpy as np
from scipy.stats import rankdata

from robusteval.metrics.predictions import Predictions


def confidence(predictions: Predictions) -> dict:
    """Return how well confidence detects errors, on the rows whose logits are finite.

    ``mean`` confidence; ``auroc``, ``aupr_success``, ``aupr_error`` and ``fpr95``, None unless there are both right and
    wrong answers; ``aurc`` and ``eaurc``, None without any; ``n`` rows used and ``nonfinite`` left out.
    """
    kept = predictions.finite()
    scores, correct = kept.confidences, kept.correct
    both = bool(correct.any() and not correct.all())
    some = len(kept) > 0
    return {
        "mean": float(scores.mean()) if some else None,
        "auroc": auroc(scores, correct) if both else None,
        "aupr_success": average_precision(scores, correct) if both else None,
        "aupr_error": average_precision(-scores, ~correct) if both else None,
        "fpr95": fpr_at(scores, correct, 0.95) if both else None,
        "aurc": aurc(scores, correct) if some else None,
        "eaurc": aurc(scores, correct) - best_aurc(correct) if some else None,
        "n": len(kept),
        "nonfinite": len(predictions) - len(kept),
    }


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the probability that a positive [n] outscores a negative, a tie counting one half (Mann-Whitney U)."""
    p = int(np.count_nonzero(positive))
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - p * (p + 1) / 2) / (p * (len(scores) - p)))


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the precision-recall curve as a sum of steps: mean precision over the positives."""
    taken, hits = _cumulated(scores, positive)
    gained = np.diff(hits, prepend=0)
    return float((hits / taken * gained).sum() / hits[-1])


def fpr_at(scores: np.ndarray, positive: np.ndarray, tpr: float) -> float:
    """Return the share of negatives at or above the highest threshold that at least ``tpr`` of the positives reach."""
    taken, hits = _cumulated(scores, positive)
    first = int(np.argmax(hits >= tpr * hits[-1]))
    return float((taken[first] - hits[first]) / (taken[-1] - hits[-1]))


def aurc(scores: np.ndarray, correct: np.ndarray) -> float:
    """Return the area under the risk-coverage curve (Geifman et al. 2019, https://arxiv.org/abs/1805.08206).

    The mean, over coverages 1/n ... 1, of the error rate among the most confident; among ties, that of a random order.
    """
    taken, hits = _cumulated(scores, correct)
    covered = np.arange(1, len(scores) + 1)
    errors = np.interp(covered, np.r_[0, taken], np.r_[0, taken - hits])
    return float((errors / covered).mean())


def best_aurc(correct: np.ndarray) -> float:
    """Return the least area that any confidence could reach with these answers: every error ranked last.

    Exact for n answers, where the paper takes the limit r + (1 - r) ln(1 - r) of error rate r.
    """
    covered = np.arange(1, len(correct) + 1)
    return float((np.maximum(covered - np.count_nonzero(correct), 0) / covered).mean())


def _cumulated(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many samples, and how many positives, score at least each distinct score, from the highest down."""
    _, group = np.unique(-scores, return_inverse=True)
    return np.bincount(group).cumsum(), np.bincount(group, weights=positive).cumsum()
