"""Regions: which pixels of an image an attack may change. ``border:4``, ``interior:4`` or ``mask:FILE``."""

import functools
import hashlib
import re
from pathlib import Path

import numpy as np
import safetensors
import torch
from PIL import Image, UnidentifiedImageError
from safetensors.numpy import load
from torch import Tensor

from robusteval.errors import UserError

_WRITTEN = re.compile(r"(border|interior):([1-9]\d{0,5})|mask:(.+)")


def fault(region: str) -> str | None:
    """Return what is wrong with how a region is written, or None."""
    if _WRITTEN.fullmatch(region):
        return None
    return (
        f"region={region} is none of border:4 (a ring of 4 pixels), interior:4 (all but that ring), mask:FILE (the "
        "bright pixels of a PNG, or the values other than 0 of an array)"
    )


def file_of(region: str | None) -> Path | None:
    """Return the file that a region names; None where it names none."""
    found = _WRITTEN.fullmatch(region or "")
    return Path(found[3]).expanduser() if found and found[3] else None


def missing(region: str | None) -> str | None:
    """Return in a sentence that the file of a region is not there, or None."""
    path = file_of(region)
    return None if path is None or path.is_file() else f"threat.region={region}: there is no file {path}"


def digest(region: str | None) -> str | None:
    """Return the sha256 of a region's file; None where it names none. Raises UserError where it cannot be read."""
    return None if (path := file_of(region)) is None else hashlib.sha256(_bytes(path)).hexdigest()


def check(region: str | None, height: int, width: int) -> None:
    """Raise UserError where a region does not fit images of this size, or leaves nothing or everything to an attack."""
    if region is None:
        return
    free = int(mask(region, height, width).sum())
    if free in (0, height * width):
        raise UserError(
            f"threat.region={region} holds {'no' if free == 0 else 'every'} pixel of an image of {height} x {width}; "
            f"{'name a larger one' if free == 0 else 'leave threat.region away, or name a smaller one'}"
        )


@functools.lru_cache(maxsize=8)
def mask(region: str, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return which pixels may be changed, [1, height, width] bool.

    ``border:r`` is the ring of the r outermost pixels on each side, ``interior:r`` all others. A mask file must be of
    that size. Raises UserError where it is not.
    """
    found = _WRITTEN.fullmatch(region)
    if found is None:
        raise UserError(f"threat.{fault(region)}")
    if (path := file_of(region)) is not None:
        free = _read(path)
        if free.shape != (height, width):
            raise UserError(
                f"threat.region={region}: the mask has shape {list(free.shape)}, and the model's images are of "
                f"{height} x {width}; one value a pixel is due"
            )
        return torch.from_numpy(free)[None].to(device)
    free = torch.zeros(1, height, width, dtype=torch.bool, device=device)
    ring = int(found[2])
    if 2 * ring < min(height, width):
        free[:, ring:-ring, ring:-ring] = True
    return ~free if found[1] == "border" else free


def _read(path: Path) -> np.ndarray:
    """Return the mask [H, W] bool of a file: a PNG's values from 128 on, an array's values other than 0."""
    data = _bytes(path)
    try:
        if path.suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False)
        elif path.suffix.lower() == ".safetensors":
            tensors = load(data)
            if len(tensors) != 1:
                raise UserError(f"threat.region=mask:{path}: one tensor is due in it, and {len(tensors)} came")
            values = next(iter(tensors.values()))
        elif path.suffix.lower() == ".png":
            with Image.open(path) as picture:
                values = np.asarray(picture.convert("L")) >= 128
        else:
            raise UserError(f"threat.region=mask:{path}: a mask is a .png, .npy or .safetensors file")
    except (OSError, ValueError, UnidentifiedImageError, safetensors.SafetensorError) as error:
        raise UserError(f"threat.region=mask:{path} cannot be read ({error})") from error
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        raise UserError(f"threat.region=mask:{path}: numbers are due in it, and {values.dtype} came")
    return values != 0


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"threat.region=mask:{path} cannot be read ({error.strerror})") from error
