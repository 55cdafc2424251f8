"""Where in the frequency domain a perturbation lies: radially averaged power, and the shares of three bands."""

from functools import cache

import numpy as np

BANDS = ("low", "mid", "high")


def frequencies(height: int, width: int) -> np.ndarray:
    """Return how many cycles a pixel every entry of an unshifted spectrum [height, width] stands for, 0 to 0.71."""
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))


@cache
def bins(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the radial bin of every entry of a spectrum [height, width], and how many entries each bin has [bins].

    Bin k holds the frequencies of k cycles, to the nearest, in the shorter side; those in the corners come last.
    """
    index = np.rint(frequencies(height, width) * min(height, width)).astype(np.int64)
    return index, np.bincount(index.ravel())


def power(delta: np.ndarray) -> np.ndarray:
    """Return |FFT|^2 / (H W) of perturbations [n, C, H, W], summed over the channels: [n, H, W].

    It adds up to the squared L2 norm of the perturbation (Parseval).
    """
    spectrum = np.fft.fft2(delta)
    return (spectrum.real**2 + spectrum.imag**2).sum(axis=1) / (delta.shape[2] * delta.shape[3])


def radial(delta: np.ndarray) -> np.ndarray:
    """Return the power of perturbations [n, C, H, W] that falls into each radial bin, [n, bins]."""
    index, sizes = bins(*delta.shape[2:])
    flat = power(delta).reshape(len(delta), -1)
    return np.stack([np.bincount(index.ravel(), weights=row, minlength=len(sizes)) for row in flat])


def bands(delta: np.ndarray) -> np.ndarray:
    """Return the power of perturbations [n, C, H, W] in the low, middle and high band, [n, 3].

    Thirds of the frequencies up to the highest of one direction, half a cycle a pixel; the corners are high.
    """
    band = np.minimum(frequencies(*delta.shape[2:]) * 6, 2).astype(np.int64)
    flat = power(delta).reshape(len(delta), -1)
    return np.stack([np.bincount(band.ravel(), weights=row, minlength=len(BANDS)) for row in flat])
