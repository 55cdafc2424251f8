"""Two classifiers on the same images: how far apart, whether by chance, and whether they fail on the same ones.

All of it follows from four counts. What is called right here is whatever the flags say: robust, or clean correct.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import root_scalar
from scipy.stats import binomtest, norm

from robusteval.randomness import generator

RESAMPLES = 10_000
_Z = float(norm.ppf(0.975))

Cells = Sequence[int] | np.ndarray
"""Four counts in the order of :class:`Counts`; as an array [4, resamples], of as many resamples."""


class Counts(NamedTuple):
    """Of n images: right for both, only for the first, only for the second, for neither."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither


def counts(first: np.ndarray, second: np.ndarray) -> Counts:
    """Return the four counts of two flags [n] of the same images. Raises ValueError where their lengths differ."""
    if first.shape != second.shape:
        raise ValueError(f"flags of the same images have the same shape, got {first.shape} and {second.shape}")
    cells = np.bincount(2 * ~first.astype(bool) + ~second.astype(bool), minlength=4)
    return Counts(*cells.tolist())


def paired(first: np.ndarray, second: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> dict:
    """Return what two flags [n] of the same images say of each other, in plain numbers; None where n is 0.

    ``difference`` is the first rate less the second, {value, low, high, bootstrap_low, bootstrap_high}: 95 % intervals
    by :func:`score_interval` and by :func:`bootstrap`. ``p`` is that of :func:`mcnemar`. ``consistency`` is
    {observed, expected, kappa, low, high} of :func:`kappa` with its bootstrap interval.
    """
    c = counts(first, second)
    low, high = score_interval(c)
    drawn, agreed = bootstrap(c, difference, seed, resamples), bootstrap(c, kappa, seed, resamples)
    observed, expected = agreement(c)
    return {
        "n": c.n,
        **c._asdict(),
        "difference": {
            "value": _number(difference(c)),
            "low": low,
            "high": high,
            "bootstrap_low": drawn[0],
            "bootstrap_high": drawn[1],
        },
        "p": mcnemar(c),
        "consistency": {
            "observed": _number(observed),
            "expected": _number(expected),
            "kappa": _number(kappa(c)),
            "low": agreed[0],
            "high": agreed[1],
        },
        "resamples": resamples,
        "seed": seed,
    }


def difference(cells: Cells) -> np.ndarray | float:
    """Return the first rate less the second, of counts that may be arrays of resamples; NaN of no images."""
    both, first, second, neither = (np.asarray(cell, dtype=np.float64) for cell in cells)
    return _over(first - second, both + first + second + neither)


def mcnemar(c: Counts) -> float:
    """Return the exact two-sided p-value of equal rates (McNemar 1947): b of b + c images that differ, at one half."""
    discordant = c.only_first + c.only_second
    return float(binomtest(c.only_first, discordant, 0.5).pvalue) if discordant else 1.0


def score_interval(c: Counts) -> tuple[float, float]:
    """Return the 95 % score interval of the difference of two paired rates; (-1, 1) of no images.

    Tango 1998 (https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B): the differences that
    a score test does not refuse, as Wilson's interval is for one rate. Unlike the bootstrap's it has a width where no
    image differs, z^2 / (n + z^2) to each side.
    """
    if not c.n:
        return -1.0, 1.0
    estimate = (c.only_first - c.only_second) / c.n
    low = -1.0 if estimate == -1 else _root(lambda d: _score(c, d) - _Z, -1.0, estimate)
    high = 1.0 if estimate == 1 else _root(lambda d: _score(c, d) + _Z, estimate, 1.0)
    return low, high


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    return float(root_scalar(function, bracket=(low, high), method="brentq", xtol=1e-12).root)


def _score(c: Counts, d: float) -> float:
    """Return Tango's statistic for a difference d; infinite where its variance is zero, at the ends of [-1, 1]."""
    n, b, other = c.n, c.only_first, c.only_second
    gap = b - other - n * d
    # The most likely rate q of images that only the second has right, given d: 2n q^2 + linear q - other d (1 - d) = 0.
    linear = (2 * n - b + other) * d - b - other
    q = (math.sqrt(max(linear**2 + 8 * n * other * d * (1 - d), 0.0)) - linear) / (4 * n)
    variance = n * (2 * q + d * (1 - d))
    return gap / math.sqrt(variance) if variance > 1e-15 else math.copysign(math.inf, gap) if gap else 0.0


def bootstrap(
    c: Counts, statistic: Callable[[Cells], np.ndarray | float], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float | None, float | None]:
    """Return the 95 % percentile interval of a statistic of the counts over resampled images; None of no images.

    Drawing n images with replacement draws their four counts from a multinomial distribution, so that many resamples of
    many images cost next to nothing. The numbers depend on ``seed`` alone.
    """
    if not c.n:
        return None, None
    drawn = generator(seed, 0, "robusteval.bootstrap").multinomial(c.n, np.array(c) / c.n, size=resamples)
    low, high = np.quantile(statistic(drawn.T), [0.025, 0.975])
    return float(low), float(high)


def agreement(cells: Cells) -> tuple[np.ndarray | float, np.ndarray | float]:
    """Return how often two are both right or both wrong, and how often independent ones of their accuracy would be."""
    both, first, second, neither = (np.asarray(cell, dtype=np.float64) for cell in cells)
    n = both + first + second + neither
    p, q = _over(both + first, n), _over(both + second, n)
    return _over(both + neither, n), p * q + (1 - p) * (1 - q)


def kappa(cells: Cells) -> np.ndarray | float:
    """Return error consistency, Cohen's kappa (Geirhos et al. 2020, https://arxiv.org/abs/2006.16736).

    (observed - expected) / (1 - expected) of :func:`agreement`: 1 where both fail on the same images, 0 where as often
    together as by chance. As in the authors' code it is 1 wherever all is agreed on, also where nothing else could be.
    """
    observed, expected = agreement(cells)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(observed == 1, 1.0, (observed - expected) / (1 - expected))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted for being several (Holm 1979): any below 0.05 holds with 5 % error over all of them."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * np.asarray(p, dtype=np.float64)[order])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


def _over(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return part / whole


def _number(value: np.ndarray | float) -> float | None:
    return float(value) if np.isfinite(value) else None
