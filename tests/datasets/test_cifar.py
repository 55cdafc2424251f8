"""CIFAR in the pickles of its authors: only the published bytes, and only arrays."""

import hashlib
import io
import pickle
import struct
import tarfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robusteval.classifier import Preprocessing
from robusteval.datasets import cifar
from robusteval.datasets.cifar import Cifar10, Cifar100
from robusteval.errors import UserError

GREY = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
LABELS = [int(label) for label in np.arange(40) % 10]


def batch(label_key: str = "labels") -> bytes:
    """A pickle as Python 2 and its NumPy wrote the published ones: byte strings, arrays from numpy.core."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    minus_one = b"J" + struct.pack("<i", -1)
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text("b") + b"\x87R"
    shape = b"K" + bytes([len(GREY)]) + b"M" + struct.pack("<H", GREY[0].size) + b"\x86"
    dtype = b"cnumpy\ndtype\n" + text("u1") + b"K\0K\1\x87R(K\3" + text("|") + b"NNN" + 2 * minus_one + b"K\0tb"
    state = b"(K\1" + shape + dtype + b"\x89T" + struct.pack("<I", GREY.nbytes) + GREY.tobytes() + b"tb"
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in LABELS) + b"e"
    return b"\x80\2}(" + text("data") + array + state + text(label_key) + labels + b"u."


def publish(
    monkeypatch: pytest.MonkeyPatch, source: type[Cifar10] | type[Cifar100], raw: bytes, archive: bytes = b""
) -> None:
    """Take ``raw`` for the published test file."""
    md5, sha256 = hashlib.md5(raw, usedforsecurity=False).hexdigest(), hashlib.sha256(archive).hexdigest()
    monkeypatch.setattr(source, "published", replace(source.published, md5=md5, sha256=sha256))


def pack(member: str, raw: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(raw)
        tar.addfile(info, io.BytesIO(raw))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("source", "place", "key"),
    [
        (Cifar10, "cifar-10-batches-py/test_batch", "labels"),
        (Cifar10, "test_batch", "labels"),
        (Cifar100, "cifar-100-python/test", "fine_labels"),
    ],
)
def test_the_unpacked_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: type[Cifar10] | type[Cifar100], place: str, key: str
) -> None:
    raw = batch(key)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(raw)
    publish(monkeypatch, source, raw)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = source(root=str(tmp_path)).load(Preprocessing(resize=8), 0)
    assert torch.equal(data.images(range(40)), torch.from_numpy(GREY / np.float32(255)))
    assert data.labels.tolist() == LABELS
    assert data.class_names is not None
    assert len(data.class_names) == len(set(data.class_names)) == (10 if source is Cifar10 else 100)


def test_the_archive_is_read_without_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = batch()
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(pack("cifar-10-batches-py/test_batch", raw))
    publish(monkeypatch, Cifar10, raw)
    source = Cifar10(root=str(tmp_path))
    assert source.missing() is None
    assert source.load(Preprocessing(), 0).labels.tolist() == LABELS
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-python.tar.gz"]


def test_download_fetches_the_archive_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = batch()
    archive = pack("cifar-10-batches-py/test_batch", raw)
    publish(monkeypatch, Cifar10, raw, archive)
    asked: list[str] = []

    def fake(url: str, path: Path, *, sha256: str) -> Path:
        assert sha256 == hashlib.sha256(archive).hexdigest()
        asked.append(url)
        path.write_bytes(archive)
        return path

    monkeypatch.setattr(cifar, "download", fake)
    for _ in range(2):
        assert len(Cifar10(root=str(tmp_path), download=True).load(Preprocessing(), 0)) == 40
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"]


def test_another_pickle_is_not_opened(tmp_path: Path, malicious: tuple[bytes, Path]) -> None:
    raw, canary = malicious
    (tmp_path / "test_batch").write_bytes(raw)
    with pytest.raises(UserError, match=r"test_batch is not the published file of CIFAR-10 \(MD5"):
        Cifar10(root=str(tmp_path)).load(Preprocessing(), 0)
    assert not canary.exists()


def test_nothing_but_arrays_is_built_even_from_the_expected_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, malicious: tuple[bytes, Path]
) -> None:
    raw, canary = malicious
    (tmp_path / "test_batch").write_bytes(raw)
    publish(monkeypatch, Cifar10, raw)
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        Cifar10(root=str(tmp_path)).load(Preprocessing(), 0)
    assert not canary.exists()


@pytest.mark.parametrize(
    "raw",
    [b"", b"<html>", pack("cifar-10-batches-py/test_batch", batch())[:-50], pack("other", b"x")],
    ids=["empty", "page", "truncated", "without the batch"],  # an archive's bytes hold the time: no name for a test
)
def test_a_damaged_archive_is_named(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(raw)
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz is damaged"):
        Cifar10(root=str(tmp_path)).load(Preprocessing(), 0)


def test_missing_says_where_it_looked(tmp_path: Path) -> None:
    sentence = Cifar100(root=str(tmp_path)).missing()
    assert sentence is not None
    assert str(tmp_path / "cifar-100-python/test") in sentence
    assert "dataset.download=true" in sentence
    with pytest.raises(UserError, match="CIFAR-100 is not there"):
        Cifar100(root=str(tmp_path)).load(Preprocessing(), 0)
