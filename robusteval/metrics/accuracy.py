"""Accuracy with its interval, class by class, and how unevenly it falls on the classes."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy.stats import binomtest


@cache
def wilson(k: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of k successes in n trials (Wilson 1927); (0, 1) where n is 0."""
    if n == 0:
        return 0.0, 1.0
    interval = binomtest(k, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def rate(correct: np.ndarray) -> dict:
    """Return {value, low, high, correct, n} of flags [n]: a fraction, its interval, its counts; None of no flags."""
    k, n = int(np.count_nonzero(correct)), len(correct)
    low, high = wilson(k, n)
    return {"value": k / n if n else None, "low": low, "high": high, "correct": k, "n": n}


def per_class(labels: np.ndarray, correct: np.ndarray, class_names: Sequence[str] | None = None) -> list[dict]:
    """Return the rate of each class that has samples, in the order of the classes, with its name where known.

    Classes without a sample are left out: they would say nothing, a thousand times over for a small subset of ImageNet.
    """
    rows = []
    for label in np.unique(labels):
        name = {} if class_names is None else {"name": class_names[label]}
        rows.append({"class": int(label), **name, **rate(correct[labels == label])})
    return rows


def disparity(rates: Sequence[dict]) -> dict:
    """Return {max, min, range, sd, worst_class} over per-class rates: how unevenly accuracy falls on the classes.

    ``sd`` is that of the population of classes; ``worst_class`` is the first of the lowest. All None without a class.
    """
    if not rates:
        return dict.fromkeys(("max", "min", "range", "sd", "worst_class"))
    values = np.array([row["value"] for row in rates])
    high, low = float(values.max()), float(values.min())
    worst = rates[int(values.argmin())]["class"]
    return {"max": high, "min": low, "range": high - low, "sd": float(values.std()), "worst_class": worst}
