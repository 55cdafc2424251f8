"""Surveys: what follows when an attack with one parameter was tried at every value, on every image.

Solarization inverts the pixels at or above a threshold (Gavrikov and Keuper 2023, https://arxiv.org/abs/2308.12661).
For images of 256 grey values 257 thresholds give every image that it can make, so one exhaustive survey answers for
the universal attack, for the worst threshold of each image, and for the published random search of any length.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from robusteval.metrics.accuracy import rate

GREYS = 256
TRIES = tuple(range(1, 51))


def thresholds() -> np.ndarray:
    """Return the 257 thresholds (k - 1/2)/255, k = 0 ... 256: the first makes the negative, the last the identity."""
    return (np.arange(GREYS + 1) - 0.5) / (GREYS - 1)


def survey(correct: np.ndarray, parameters: np.ndarray, clean_correct: np.ndarray, *, exhaustive: bool) -> dict:
    """Return what flags ``correct`` [n, columns] at ``parameters`` [columns] say, in plain numbers.

    ``universal`` is the accuracy of each parameter, {parameter, value, low, high, correct, n} in the order given;
    ``worst`` the first of its lowest; ``per_image`` the accuracy when each image gets its own worst parameter. An
    ``exhaustive`` one of solarization adds ``random``: what RandSol would reach, see :func:`random_search`.
    """
    curve = universal(correct, parameters)
    found = {"universal": curve, "worst": worst(curve), "per_image": rate(clean_correct & correct.all(axis=1))}
    if exhaustive:
        found["random"] = random_search(clean_correct, fooling_measure(correct, parameters))
    return found


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
