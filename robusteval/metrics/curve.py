"""Robust accuracy over the radius: from what broke each sample, or from how near its nearest adversarial is."""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from robusteval.metrics.accuracy import rate

_INTERVALS = 20
_ROUND = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)


def curve(samples: pa.Table, eps: float | Sequence[float] | None, point: str) -> list[dict] | None:
    """Return [{eps, value, low, high, correct, n}] of robust accuracy over ascending radii; None where it has no curve.

    A list of radii is the curve's. A minimum-norm run (``point`` is nearest) knows every radius: with a single one it
    gets 21 from 0 to a round number that no distance exceeds, and that one. Otherwise there is none.
    """
    if eps is None or not (point == "nearest" or isinstance(eps, Sequence)):
        return None
    correct = samples.column("clean_correct").to_numpy()
    fell = _fell(samples, point)
    radii = eps if isinstance(eps, Sequence) else grid(eps, fell[correct])
    return [{"eps": radius, **rate(correct & ~(fell <= radius))} for radius in radii]


def robust_at(samples: pa.Table, radius: float, point: str) -> np.ndarray:
    """Return which images [n] are right and not broken within a radius that the run knows."""
    return samples.column("clean_correct").to_numpy() & ~(_fell(samples, point) <= radius)


def _fell(samples: pa.Table, point: str) -> np.ndarray:
    return _floats(samples, "adversarial_distance" if point == "nearest" else "broken_at_eps")


def grid(eps: float, distances: np.ndarray) -> list[float]:
    """Return ascending radii for distances [n] (NaN: none): 0 to a round number that covers them, with ``eps``."""
    reach = max([eps, *distances[np.isfinite(distances)].tolist()])
    if reach == 0:
        return [0.0]
    unit = 10.0 ** math.floor(math.log10(reach))
    top = next((top for part in _ROUND if (top := _tidy(part * unit)) >= reach), reach)
    return sorted({eps, *(_tidy(top * step / _INTERVALS) for step in range(_INTERVALS + 1))})


def _tidy(value: float) -> float:
    """Return the number as read from twelve digits: 0.15, not the 0.15000000000000002 of a product."""
    return float(f"{value:.12g}")


def radii_of(eps: float | Sequence[float] | None) -> list[float]:
    """Return the radii of a threat model as results.json has them, ascending: none where unbounded."""
    if eps is None:
        return []
    return [*eps] if isinstance(eps, Sequence) else [eps]


def smallest_that_reach(radii: Sequence[float], distances: np.ndarray) -> np.ndarray:
    """Return the smallest of ascending radii that is at least each distance [n]; infinite where none is, or for NaN."""
    return np.append(radii, np.inf)[np.searchsorted(radii, distances)]


def _floats(samples: pa.Table, name: str) -> np.ndarray:
    """Return a column as float64, NaN where it has no value."""
    return samples.column(name).to_numpy(zero_copy_only=False).astype(np.float64)
