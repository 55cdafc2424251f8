"""Filters in the frequency domain: which frequencies pass, and images without the others."""

import math

import torch
from torch import Tensor


def square_mask(height: int, width: int, cutoff: float, *, high: bool) -> Tensor:
    """Return the published mask of the shifted spectrum, [height, width] bool (Gavrikov & Keuper 2024,
    https://arxiv.org/abs/2404.01509).

    Low-pass: the square of half sides int(c * (side // 2)) around the middle, its lower end included and its upper end
    not: on even sizes it reaches one frequency further down than up. High-pass: all but the square of 1 - c, so without
    the constant.
    """
    reach = 1 - cutoff if high else cutoff
    mask = torch.full((height, width), high)
    middle = (height // 2, width // 2)
    half = [int(reach * side) for side in middle]
    mask[middle[0] - half[0] : middle[0] + half[0], middle[1] - half[1] : middle[1] + half[1]] = not high
    return mask


def radial_mask(height: int, width: int, cutoff: float, *, high: bool) -> Tensor:
    """Return the mask of the frequencies of at most c (low), or of at least 1 - c and the constant (high), [H, W] bool.

    Frequencies count from 0 to 1, at the corner of the shifted spectrum: c = 1 is the identity of both.
    """
    down, across = (torch.fft.fftshift(torch.fft.fftfreq(side, dtype=torch.float64)) for side in (height, width))
    radius = (down[:, None] ** 2 + across**2).sqrt() / math.hypot(float(down.abs().max()), float(across.abs().max()))
    if not high:
        return radius <= cutoff + 1e-12
    return (radius >= 1 - cutoff - 1e-12) | (radius == 0)


def filtered(x: Tensor, mask: Tensor) -> Tensor:
    """Return the image [C, H, W] with the frequencies of a mask of the shifted spectrum [H, W], within [0, 1].

    As published: the real part, and what falls below 0 cut off.
    """
    spectrum = torch.fft.fftshift(torch.fft.fft2(x), dim=(-2, -1)) * mask
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1))).real.clamp(0, 1)
