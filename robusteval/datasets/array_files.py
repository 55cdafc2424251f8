"""Reading images and labels out of one .npz or .safetensors file, without unpickling anything."""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from robusteval.downloads import sniff
from robusteval.errors import UserError

_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    zipfile.BadZipFile,
    zlib.error,
    SafetensorError,
    NotImplementedError,
)


@dataclass(frozen=True, kw_only=True)
class ArrayFile:
    """``rows`` reads images by position; images and labels are as stored; ``sha256`` is that of the file."""

    shape: tuple[int, ...]
    rows: Callable[[np.ndarray], np.ndarray]
    labels: np.ndarray
    sha256: str


def open_arrays(path: Path, where: str) -> ArrayFile:
    """Open the file. Raises UserError, beginning with ``where``, if it is damaged or lacks images or labels."""
    opener = {".npz": _npz, ".safetensors": _safetensors}.get(path.suffix.lower())
    if opener is None:
        raise UserError(
            f"{where} is neither .npz nor .safetensors; write it with numpy.savez(FILE, images=…, labels=…)"
        )
    try:
        if what := sniff(path):
            raise UserError(f"{where} is {what}; give the right file")
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        shape, rows, labels = opener(path, where)
    except MemoryError as error:
        raise UserError(f"{where} does not fit into memory; save it as .safetensors, which is read in parts") from error
    except _DAMAGED as error:
        pickled = "pickle" in str(error)
        reason = "holds Python objects, which are never loaded" if pickled else f"is damaged or no such file ({error})"
        raise UserError(f"{where} {reason}; save it again with numpy.savez and arrays of numbers") from error
    return ArrayFile(shape=shape, rows=rows, labels=labels, sha256=sha256)


def _npz(path: Path, where: str) -> tuple[tuple[int, ...], Callable[[np.ndarray], np.ndarray], np.ndarray]:
    opened = np.load(path, allow_pickle=False)
    if not isinstance(opened, np.lib.npyio.NpzFile):
        raise UserError(f"{where} holds one array without a name; write it with numpy.savez(FILE, images=…, labels=…)")
    with opened as archive:
        _need(archive.files, where)
        images, labels = archive["images"], archive["labels"]
    _number(str(images.dtype), where)
    return images.shape, lambda rows: images[rows], labels


def _safetensors(path: Path, where: str) -> tuple[tuple[int, ...], Callable[[np.ndarray], np.ndarray], np.ndarray]:
    with safe_open(path, framework="numpy") as archive:
        _need(archive.keys(), where)
        part = archive.get_slice("images")
        shape, labels = tuple(part.get_shape()), archive.get_tensor("labels")
        kind = str(part.get_dtype())
        _number({"U8": "uint8", "F16": "float16", "F32": "float32", "F64": "float64"}.get(kind, kind), where)

    def rows(positions: np.ndarray) -> np.ndarray:
        with safe_open(path, framework="numpy") as archive:
            images = archive.get_slice("images")
            return np.stack([images[int(position)] for position in positions])

    return shape, rows, labels


def _need(names: Iterable[str], where: str) -> None:
    have = sorted(names)
    if {"images", "labels"} <= set(have):
        return
    found = f"holds {', '.join(have)}" if have else "holds nothing"
    for images, labels in (("x", "y"), ("X", "y"), ("data", "targets"), ("x_test", "y_test")):
        if {images, labels} <= set(have):
            advice = f"save it again with numpy.savez(FILE, images={images}, labels={labels})"
            break
    else:
        advice = "save it again with numpy.savez(FILE, images=…, labels=…)"
    raise UserError(f"{where} {found}, but arrays named images and labels are needed; {advice}")


def _number(kind: str, where: str) -> None:
    if kind == "object":
        raise UserError(f"{where} holds Python objects as images, which are never loaded; save numbers instead")
    if kind not in ("uint8", "float16", "float32", "float64"):
        raise UserError(f"{where} has images of type {kind}; give uint8 (0 to 255) or floating point (0 to 1)")
