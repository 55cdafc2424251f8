"""An interval that holds at whatever moment one stops: a confidence sequence for sampling without replacement."""

import math
from collections.abc import Mapping

import numpy as np
from scipy.stats import hypergeom

ALPHA = 0.05


def bounds(k: int, n: int, total: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Return (low, high) of the share of ones among ``total`` images, k of the first n in random order being ones.

    The prior-posterior-ratio confidence sequence of Waudby-Smith & Ramdas 2020 (https://arxiv.org/abs/2006.04347,
    theorem 2.1) with a uniform prior on the number of ones m: under it k has probability 1 / (n + 1), so that
    1 / (n + 1) over the hypergeometric probability of k is a martingale where m is true, and by Ville's inequality
    it ever reaches 1 / alpha with probability at most ``alpha``. So the interval, all m for which it has not, covers
    the truth at all n at once. At n = total it is the truth alone.
    """
    if not 0 <= k <= n <= total or total < 1:
        raise ValueError(f"k={k} of n={n} images of total={total}: 0 <= k <= n <= total is due")
    possible = np.arange(k, total - (n - k) + 1)
    likely = possible[hypergeom.logpmf(k, total, possible, n) > math.log(alpha) - math.log(n + 1)]
    return float(likely[0] / total), float(likely[-1] / total)


def reached(rules: Mapping[str, float], low: float, high: float) -> str | None:
    """Return which of the rules (width, below, above) an interval satisfies, the first of several; None for none."""
    holds = {"width": lambda v: high - low <= v, "below": lambda v: high < v, "above": lambda v: low > v}
    return next((name for name, value in rules.items() if holds[name](value)), None)
