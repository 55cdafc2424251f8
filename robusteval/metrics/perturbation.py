"""What perturbations look like: where in the image they lie, in which channels and at which frequencies.

At image borders, where padding acts, perturbations show anomalies (Gavrikov & Keuper 2023,
https://arxiv.org/abs/2308.06612). The paper shows maps; the numbers here are ours: the mean absolute perturbation of a
ring of pixels over that of the rest, and the ring's share of all of it beside its share of the pixels. Intervals are
bootstrapped over images.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from robusteval.metrics import spectrum

RINGS = (1, 2, 3, 4)
RESAMPLES = 1000
_AT_ONCE = 50  # resamples, so that fifty thousand images take no more than a few megabytes
_DIGITS = 9  # significant: the last bits of a sum depend on the processor

Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shapes:
    """What the perturbations of n images come to; float64.

    ``mass`` [n] is the sum of |d|, ``rings`` [n, 4] that of the 1 to 4 outermost pixels on each side, ``channels``
    [n, C] that of each channel; ``radial`` [n, bins] and ``bands`` [n, 3] are power by frequency. ``total`` [H, W] is
    the sum over the images of |d|, averaged over the channels.
    """

    mass: np.ndarray
    rings: np.ndarray
    channels: np.ndarray
    radial: np.ndarray
    bands: np.ndarray
    total: np.ndarray

    def __len__(self) -> int:
        return len(self.mass)

    @classmethod
    def of(cls, delta: np.ndarray) -> Self:
        """Return the statistics of perturbations [n, C, H, W]."""
        delta = delta.astype(np.float64)
        size = np.abs(delta)
        flat = size.sum(axis=1)
        return cls(
            mass=flat.sum(axis=(1, 2)),
            rings=ring_sums(flat),
            channels=size.sum(axis=(2, 3)),
            radial=spectrum.radial(delta),
            bands=spectrum.bands(delta),
            total=size.mean(axis=1).sum(axis=0),
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the statistics of all images of several parts (at least one) of one shape."""
        each = {field.name: [getattr(part, field.name) for part in parts] for field in fields(cls)}
        return cls(
            **{
                name: np.sum(values, axis=0) if name == "total" else np.concatenate(values)
                for name, values in each.items()
            }
        )


def ring_sums(maps: np.ndarray) -> np.ndarray:
    """Return the sums of maps [n, H, W] over the rings of 1 to 4 pixels, [n, 4]."""
    height, width = maps.shape[1:]
    down, across = (np.minimum(np.arange(side), side - 1 - np.arange(side)) for side in (height, width))
    depth = np.minimum(down[:, None], across)
    return np.stack([maps[:, depth < ring].sum(axis=1) for ring in RINGS], axis=1)


def area(ring: int, height: int, width: int) -> float:
    """Return the share of the pixels that lie in a ring."""
    return 1 - max(height - 2 * ring, 0) * max(width - 2 * ring, 0) / (height * width)


def border(mass: np.ndarray, rings: np.ndarray, height: int, width: int, seed: int) -> list[dict]:
    """Return {ring, ratio, mass_share, area_share} of each ring of 1 to 4 pixels that leaves an interior.

    ``ratio`` is the mean |d| of the ring over that of the interior: 1 for a perturbation that is even, None with
    ``infinite`` where all of it lies in the ring. ``mass_share`` is the ring's share of all |d|. Both of the sums over
    the images of ``mass`` [n] and ``rings`` [n, 4], with bootstrapped 95 % intervals.
    """
    found = []
    for number, ring in enumerate(RINGS):
        share = area(ring, height, width)
        if share >= 1:
            continue

        def ratio(sums: np.ndarray, share: float = share) -> np.ndarray:
            inside = np.maximum(sums[:, 0] - sums[:, 1], 0)  # of a ring alone rounding may leave less than nothing
            return _divided(sums[:, 1] / share, np.where(inside < 1e-12 * sums[:, 0], 0, inside) / (1 - share))

        columns = np.stack([mass, rings[:, number]], axis=1)
        found.append(
            {
                "ring": ring,
                "ratio": interval(columns, ratio, seed),
                "mass_share": interval(columns, lambda sums: _divided(sums[:, 1], sums[:, 0]), seed),
                "area_share": number_of(share),
            }
        )
    return found


def shares(columns: np.ndarray, seed: int) -> list[dict]:
    """Return each column's share of all columns [n, k] in the sums over the images, with its interval."""
    return [
        interval(columns, lambda sums, k=k: _divided(sums[:, k], sums.sum(axis=1)), seed)
        for k in range(columns.shape[1])
    ]


def interval(columns: np.ndarray, statistic: Statistic, seed: int) -> dict:
    """Return {value, low, high} of a statistic of column sums, from statistics [n, k] of n images.

    ``statistic`` maps sums [m, k] to values [m]. The interval is that of the 2.5 and 97.5 % quantiles of 1000 resamples
    of the images. Where the value is infinite it is None and ``infinite`` is true; None alone where there is none.
    """
    value = float(statistic(columns.sum(axis=0)[None])[0])
    drawn = np.concatenate([statistic(sums) for sums in _resampled(columns, seed)])
    known = np.sort(drawn[~np.isnan(drawn)])
    if not len(known):
        ends = [math.nan, math.nan]
    else:  # no interpolation, which between infinities is none
        ends = [float(known[round(q * (len(known) - 1))]) for q in (0.025, 0.975)]
    low, high = ends
    return {
        "value": number_of(value),
        "low": number_of(low),
        "high": number_of(high),
        **({"infinite": True} if math.isinf(value) else {}),
    }


def number_of(value: float) -> float | None:
    """Return a number of so many digits as do not depend on the processor; None where it is not finite."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def _resampled(columns: np.ndarray, seed: int) -> "list[np.ndarray]":
    n, numbers = len(columns), np.random.default_rng(seed)
    sums = []
    for begin in range(0, RESAMPLES, _AT_ONCE):
        count = min(_AT_ONCE, RESAMPLES - begin)
        picked = numbers.integers(0, n, (count, n))
        times = np.stack([np.bincount(row, minlength=n) for row in picked])
        sums.append(times @ columns)
    return sums


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return above / below


def describe(shapes: Shapes, seed: int) -> dict:
    """Return the ``perturbation`` numbers of at least one image, in plain numbers.

    ``mean_absolute`` is the mean |d| of a value; ``rows`` and ``columns`` the profiles of the mean map; ``border`` see
    :func:`border`; ``channels`` and ``bands`` the shares of |d| and of power; ``radial`` the power of one frequency,
    averaged over its bin and the images.
    """
    height, width = shapes.total.shape
    n, values = len(shapes), shapes.channels.shape[1] * height * width
    mean = shapes.total / n
    _, sizes = spectrum.bins(height, width)
    average = shapes.radial.sum(axis=0) / sizes / n
    mass = shapes.mass[:, None]
    return {
        "mean_absolute": interval(
            np.hstack([mass, np.full_like(mass, values)]), lambda sums: _divided(sums[:, 0], sums[:, 1]), seed
        ),
        "border": border(shapes.mass, shapes.rings, height, width, seed),
        "channels": [{"channel": c, **row} for c, row in enumerate(shares(shapes.channels, seed))],
        "bands": [{"band": name, **row} for name, row in zip(spectrum.BANDS, shares(shapes.bands, seed), strict=True)],
        "radial": [
            {"cycles": k, "frequency": number_of(k / min(height, width)), "power": number_of(float(p))}
            for k, p in enumerate(average)
        ],
        "rows": [number_of(float(v)) for v in mean.mean(axis=1)],
        "columns": [number_of(float(v)) for v in mean.mean(axis=0)],
    }


NAMES = tuple(field.name for field in fields(Shapes))


def as_arrays(shapes: Shapes) -> Mapping[str, np.ndarray]:
    """Return the statistics by name."""
    return {name: getattr(shapes, name) for name in NAMES}
