"""MNIST in IDX files where torchvision would cache them."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from robusteval.classifier import Preprocessing
from robusteval.datasets import mnist
from robusteval.datasets.mnist import IMAGES, LABELS, SHA256, Mnist
from robusteval.errors import UserError

GREY = np.random.default_rng(0).integers(0, 256, (25, 28, 28), dtype=np.uint8)
NUMBERS = (np.arange(25) % 10).astype(np.uint8)
OFFICIAL = Path(__file__).parents[3] / "shared" / "data" / "mnist"


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def lay(folder: Path, *, zipped: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in ((IMAGES, GREY), (LABELS, NUMBERS)):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("below", ["MNIST/raw", "."])
def test_files_are_read_where_torchvision_puts_them(tmp_path: Path, zipped: bool, below: str) -> None:
    lay(tmp_path / below, zipped=zipped)
    source = Mnist(root=str(tmp_path))
    assert source.missing() is None
    data = source.load(Preprocessing(), 0)
    assert torch.equal(data.images(range(25))[:, 0], torch.from_numpy(GREY / np.float32(255)))
    assert data.labels.tolist() == NUMBERS.tolist()


def test_the_default_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTEVAL_DATA", str(tmp_path))
    sentence = Mnist().missing()
    assert sentence is not None
    assert str(tmp_path / "MNIST/raw") in sentence
    assert "dataset.download=true" in sentence
    lay(tmp_path / "MNIST/raw", zipped=True)
    assert Mnist().missing() is None


@pytest.mark.parametrize("damage", ["cut", "not gzip", "HTML", "head", "longer", "labels"])
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    lay(tmp_path, zipped=True)
    file = tmp_path / f"{IMAGES}.gz"
    raw = idx(GREY)
    file.write_bytes(
        {
            "cut": file.read_bytes()[:-100],
            "not gzip": raw,
            "HTML": b"<html></html>",
            "head": gzip.compress(idx(NUMBERS)),
            "longer": gzip.compress(raw + b"\0"),
            "labels": gzip.compress(idx(GREY[:20])),
        }[damage]
    )
    with pytest.raises(UserError, match=str(file)):
        Mnist(root=str(tmp_path)).load(Preprocessing(), 0)


def test_download_asks_for_the_published_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def fake(url: str, path: Path, *, sha256: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(idx(GREY if "images" in url else NUMBERS)))
        asked.append((url.rpartition("/")[2], sha256))
        return path

    monkeypatch.setattr(mnist, "download", fake)
    source = Mnist(root=str(tmp_path), download=True)
    assert source.missing() is None
    assert len(source.load(Preprocessing(), 0)) == 25
    assert asked == [(f"{name}.gz", SHA256[name]) for name in (IMAGES, LABELS)]
    source.load(Preprocessing(), 0)
    assert len(asked) == 2


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="../shared/data is absent")
def test_the_official_test_set_has_the_published_digests_and_counts() -> None:
    import hashlib

    for name, expected in SHA256.items():
        assert hashlib.sha256((OFFICIAL / f"{name}.gz").read_bytes()).hexdigest() == expected
    data = Mnist(root=str(OFFICIAL)).load(Preprocessing(), 0)
    assert np.bincount(data.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert round(float(data.images(range(10000)).mean()), 4) == 0.1325
