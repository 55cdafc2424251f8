"""Picture files into images: decoded, resized and cropped as the classifier was trained."""

import os
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robusteval.classifier import Preprocessing
from robusteval.datasets.base import Read
from robusteval.downloads import sniff
from robusteval.errors import UserError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
Mode = Literal["RGB", "L"]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Eight bits a channel; the others (16 bit, floating point) would be cut to eight without a word.
_READABLE = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_THREADS = min(8, os.cpu_count() or 1)


def reader(files: Sequence[Path], preprocessing: Preprocessing, mode: Mode = "RGB") -> Read:
    """Return a function from positions in ``files`` to images [n, C, H, W], decoded by a small pool of threads."""

    def read(positions: np.ndarray) -> Tensor:
        chosen = [files[position] for position in positions]
        with ThreadPoolExecutor(_THREADS) as pool:
            pictures = list(pool.map(lambda file: decode(file, preprocessing, mode), chosen))
        sizes = {picture.shape for picture in pictures}
        if len(sizes) > 1:
            odd = next(
                file for file, picture in zip(chosen, pictures, strict=True) if picture.shape != pictures[0].shape
            )
            raise UserError(
                f"{chosen[0]} and {odd} have different sizes and the model states no crop; "
                "resize the pictures to one size, or use a model that says how to crop"
            )
        grey = np.stack(pictures) if pictures else np.zeros((0, len(mode), 0, 0), np.uint8)
        return torch.from_numpy(grey).to(torch.float32).div_(255)

    return read


def decode(file: Path, preprocessing: Preprocessing, mode: Mode = "RGB") -> np.ndarray:
    """Return one picture as grey values uint8 [C, H, W]. Raises UserError naming the file where it is damaged."""
    try:
        with Image.open(file) as opened:
            if opened.mode not in _READABLE:
                raise UserError(f"{file} has pixels of kind {opened.mode}; convert it to 8 bits a channel")
            picture = opened.convert(mode)
        pixels = np.asarray(_resize_and_crop(picture, preprocessing))
    except _DAMAGED as error:
        what = (sniff(file) if file.is_file() else None) or f"damaged or no picture ({error})"
        raise UserError(f"{file} cannot be read: it is {what}; repair or remove it") from error
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def content(files: Sequence[Path], root: Path) -> list[bytes]:
    """Return what identifies picture files without reading them: name below ``root`` and size in bytes."""
    return [f"{file.relative_to(root).as_posix()} {file.stat().st_size}".encode() for file in files]


def _resize_and_crop(picture: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Resize, then crop the centre, with the roundings of torchvision's Resize and CenterCrop."""
    if preprocessing.resize is not None:
        size = _size_after(preprocessing.resize, *picture.size)
        if size != picture.size:
            picture = picture.resize(size, _FILTERS[preprocessing.interpolation])
    if preprocessing.crop is not None:
        height, width = preprocessing.crop
        left, top = _margin(picture.width, width), _margin(picture.height, height)
        more = preprocessing.around
        box = (left - more, top - more, left + width + more, top + height + more)
        picture = picture.crop(box)  # black where the picture is smaller
    return picture


def _size_after(resize: int | tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """Return the (width, height) that a picture is resized to."""
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    longer = int(resize * max(width, height) / min(width, height))
    return (resize, longer) if width <= height else (longer, resize)


def _margin(have: int, want: int) -> int:
    """Return where a centred crop begins; negative where the picture is smaller than the crop."""
    return round((have - want) / 2) if have >= want else -((want - have) // 2)
