"""Surveys: what follows when an attack with one parameter was tried at every value, on every image.

Solarization inverts the pixels at or above a threshold (Gavrikov and Keuper 2023, https://arxiv.org/abs/2308.12661).
For images of 256 grey values 257 thresholds give every image that it can make, so one exhaustive survey answers for
the universal attack, for the worst threshold of each image, and for the published random search of any length.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from robusteval.metrics.accuracy import rate

GREYS = 256
TRIES = tuple(range(1, 51))


def thresholds() -> np.ndarray:
    """Return the 257 thresholds (k - 1/2)/255, k = 0 ... 256: the first makes the negative, the last the identity."""
    return (np.arange(GREYS + 1) - 0.5) / (GREYS - 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fooling:
    """How many images of each class are fooled by each parameter: ``labels`` [k], their originally right images ``n``
    [k], and ``fooled`` [k, columns] of them. Classes without an image that is right are left out."""

    labels: np.ndarray
    n: np.ndarray
    fooled: np.ndarray


def survey(
    correct: np.ndarray,
    parameters: np.ndarray,
    clean_correct: np.ndarray,
    *,
    exhaustive: bool,
    chances: np.ndarray | None = None,
) -> dict:
    """Return what flags ``correct`` [n, columns] at ``parameters`` [columns] say, in plain numbers.

    ``universal`` is the accuracy of each parameter, {parameter, value, low, high, correct, n} in the order given;
    ``worst`` the first of its lowest; ``per_image`` the accuracy when each image gets its own worst parameter. An
    ``exhaustive`` one adds ``random``: what a random search would reach, see :func:`random_search`, that draws each
    parameter with its chance [columns]; without chances it is RandSol.
    """
    curve = universal(correct, parameters)
    found = {"universal": curve, "worst": worst(curve), "per_image": rate(clean_correct & correct.all(axis=1))}
    if exhaustive:
        measure = fooling_measure(correct, parameters) if chances is None else ~correct @ chances
        found["random"] = random_search(clean_correct, measure)
    return found


def consistency(same: np.ndarray, identity: int | None) -> dict:
    """Return how often a transform leaves the prediction alone, right or wrong, from flags [n, columns].

    ``mean`` is P[f(x) = f(T(x))] for a random parameter, {value, low, high, n} with a normal interval over the images,
    and ``adversarial`` the share of images whose prediction no parameter changes (Shifman & Weiss 2024,
    https://arxiv.org/abs/2404.07153). The column ``identity`` is left out.
    """
    kept = same if identity is None else np.delete(same, identity, axis=1)
    share, n = kept.mean(axis=1), len(kept)
    value = float(share.mean()) if n else None
    half = 1.959964 * float(share.std(ddof=1)) / n**0.5 if n > 1 else None
    return {
        "mean": {
            "value": value,
            "low": None if value is None or half is None else max(value - half, 0.0),
            "high": None if value is None or half is None else min(value + half, 1.0),
            "n": n,
        },
        "adversarial": rate(np.logical_and.reduce(kept, axis=1)),
    }


def universal(correct: np.ndarray, parameters: Sequence[float] | np.ndarray) -> list[dict]:
    """Return the accuracy with its interval at each parameter [columns] for all images, from flags [n, columns]."""
    return [{"parameter": float(a), **rate(column)} for a, column in zip(parameters, correct.T, strict=True)]


def worst(curve: Sequence[dict]) -> dict | None:
    """Return the point of lowest accuracy, the first of equal ones; None of a curve without images or points."""
    known = [point for point in curve if point["value"] is not None]
    return min(known, key=lambda point: point["value"], default=None)


def fooling_measure(correct: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Return, for each image [n], the probability that a threshold drawn from U[0, 1) fools the classifier.

    ``correct`` [n, 257] are the flags at :func:`thresholds`. A threshold in ((k-1)/255, k/255] inverts the grey values
    k and above, k = 1 ... 255: each column but the first and the last stands for a measure of 1/255. Raises ValueError
    where the columns are other ones.
    """
    if len(parameters) != GREYS + 1 or not np.allclose(parameters, thresholds(), rtol=0, atol=1e-6):
        raise ValueError(
            f"the measure needs the {GREYS + 1} thresholds between grey values, got {len(parameters)} others"
        )
    return (~correct[:, 1:GREYS]).mean(axis=1)


def random_search(clean_correct: np.ndarray, measure: np.ndarray, tries: Iterable[int] = TRIES) -> list[dict]:
    """Return the expected accuracy of RandSol after T tries, [{tries, value, se}], for fooling measures m [n].

    Draws are independent and a fooled image stays fooled, so a correct one survives with probability q = (1 - m)^T.
    ``se`` is the standard error of one run of the random search about ``value``: sqrt(sum q (1 - q)) / n. Empty for
    no image.
    """
    n = len(measure)
    rows = []
    for t in tries if n else ():
        q = clean_correct * (1 - measure) ** t
        rows.append({"tries": t, "value": float(q.mean()), "se": float(np.sqrt((q * (1 - q)).sum()) / n)})
    return rows
