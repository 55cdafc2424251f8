"""Small things that several tests of the datasets need."""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PictureMaker = Callable[..., Path]


@pytest.fixture
def picture() -> PictureMaker:
    """Write a picture file of random colours and return its path."""

    def write(path: Path, *, size: tuple[int, int] = (12, 10), mode: str = "RGB", seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}[mode]
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
        Image.fromarray(pixels, mode).save(path)
        return path

    return write


class _Touch:
    """Unpickling this writes a file: proof that code from a data file was executed."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str, int]]:
        return os.open, (str(self.canary), os.O_CREAT | os.O_WRONLY)


@pytest.fixture
def malicious(tmp_path: Path) -> tuple[bytes, Path]:
    """Bytes of a pickle that touches a canary file when loaded, and the path of that file."""
    canary = tmp_path / "canary"
    buffer = io.BytesIO()
    pickle.dump({"data": _Touch(canary), "labels": [0]}, buffer, protocol=2)
    return buffer.getvalue(), canary
