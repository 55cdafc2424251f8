"""The user's own arrays: every way they may come, and every way they may be wrong."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from robusteval.classifier import Preprocessing
from robusteval.datasets.arrays import Arrays
from robusteval.datasets.base import Dataset
from robusteval.errors import UserError

GREY = np.random.default_rng(0).integers(0, 256, (30, 3, 6, 5), dtype=np.uint8)
LABELS = np.arange(30) % 4
EXPECTED = torch.from_numpy(GREY.astype(np.float32) / np.float32(255))


def load(path: Path, layout: str = "auto", n: int | None = None) -> Dataset:
    source = Arrays(path=str(path), layout=layout, n=n)  # pyright: ignore[reportArgumentType]
    assert source.missing() is None
    return source.load(Preprocessing(resize=3), seed=0)


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return tmp_path / "own.npz"


@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_every_form_gives_the_same_images(tmp_path: Path, kind: str, layout: str, suffix: str) -> None:
    images = GREY if kind == "uint8" else (GREY / 255).astype(kind)
    images = np.ascontiguousarray(images if layout == "NCHW" else images.transpose(0, 2, 3, 1))
    path = tmp_path / f"own{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, images=images, labels=LABELS.astype(np.int32))
    else:
        save_file({"images": images, "labels": LABELS}, path)
    own = load(path)
    assert own.labels.dtype == np.int64
    assert (own.labels == LABELS).all()
    assert torch.allclose(own.images([29, 0, 4]), EXPECTED[[29, 0, 4]], atol=1e-7)
    part = load(path, n=7)
    assert torch.allclose(part.images(range(7)), EXPECTED[part.ids], atol=1e-7)
    assert (part.labels == LABELS[part.ids]).all()


def test_half_precision_is_taken(npz: Path) -> None:
    np.savez(npz, images=(GREY / 255).astype(np.float16), labels=LABELS)
    assert torch.allclose(load(npz).images(range(30)), EXPECTED, atol=5e-4)


def test_the_layout_may_be_said_where_it_cannot_be_told(npz: Path) -> None:
    images = np.random.default_rng(0).random((5, 3, 7, 1)).astype(np.float32)
    np.savez(npz, images=images, labels=np.zeros(5, int))
    with pytest.raises(UserError, match=r"dataset\.layout=NCHW or dataset\.layout=NHWC"):
        load(npz)
    assert load(npz, "NCHW").images([0]).shape == (1, 3, 7, 1)
    assert load(npz, "NHWC").images([0]).shape == (1, 1, 3, 7)


def test_the_digest_follows_content_and_not_the_path(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", images=GREY, labels=LABELS)
    changed = GREY.copy()
    changed[3, 1, 1, 1] ^= 1
    np.savez(tmp_path / "c.npz", images=changed, labels=LABELS)
    digests = [load(tmp_path / f"{name}.npz").digest for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    assert load(tmp_path / "a.npz", n=5).digest != digests[0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": GREY, "y": LABELS}, "holds x, y, but arrays named images and labels.*images=x, labels=y"),
        ({"X": GREY, "y": LABELS}, "images=X, labels=y"),
        ({"images": GREY}, "holds images, but"),
        ({"images": GREY, "labels": LABELS[:-1]}, "30 images but 29 labels"),
        ({"images": GREY[:, 0], "labels": LABELS}, r"images\[:, None\]"),
        ({"images": GREY.reshape(30, -1), "labels": LABELS}, r"shape \[30, 90\]"),
        ({"images": np.float32(0), "labels": LABELS}, r"shape \[\]"),
        ({"images": GREY[:, :2], "labels": LABELS}, "where the channels are"),
        ({"images": GREY.astype(np.int64), "labels": LABELS}, "images of type int64"),
        ({"images": GREY // 200, "labels": LABELS}, "no value above 1"),
        ({"images": GREY, "labels": np.eye(4)[LABELS]}, r"labels\.argmax\(1\)"),
        ({"images": GREY, "labels": LABELS[:, None]}, r"labels\.ravel\(\)"),
        ({"images": GREY, "labels": LABELS.astype(float)}, "labels of type float64"),
        ({"images": GREY[:0], "labels": LABELS[:0]}, "no images"),
    ],
)
def test_wrong_arrays_are_refused_with_the_key_and_the_cause(npz: Path, arrays: dict, message: str) -> None:
    np.savez(npz, **arrays)
    with pytest.raises(UserError, match=rf"^dataset\.path={npz} .*{message}"):
        load(npz)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ((GREY / 255 - 0.45) / 0.25, "look normalised"),
        (GREY.astype(np.float32), "divide by 255"),
        (np.where(GREY == 7, np.nan, GREY / 255), "not finite"),
        (np.where(GREY == 7, 1e300, GREY / 255), "not finite"),
    ],
)
def test_wrong_values_are_refused_when_read(npz: Path, images: np.ndarray, message: str) -> None:
    np.savez(npz, images=images, labels=LABELS)
    with pytest.raises(UserError, match=rf"dataset\.path={npz}.*{message}"):
        load(npz).images(range(30))


def test_a_file_that_is_cut_off_is_refused_wherever_it_ends(npz: Path, tmp_path: Path) -> None:
    np.savez(npz, images=GREY, labels=LABELS)
    save_file({"images": GREY, "labels": LABELS}, tmp_path / "own.safetensors")
    for whole in (npz, tmp_path / "own.safetensors"):
        raw = whole.read_bytes()
        for length in (0, 1, 7, 100, len(raw) // 2, len(raw) - 1):
            cut = tmp_path / f"cut{whole.suffix}"
            cut.write_bytes(raw[:length])
            with pytest.raises(UserError, match=rf"^dataset\.path={cut}"):
                load(cut)


def test_a_flipped_byte_in_the_images_is_found(npz: Path) -> None:
    np.savez(npz, images=GREY, labels=LABELS)
    raw = bytearray(npz.read_bytes())
    raw[raw.index(GREY.tobytes()) + 5] ^= 1
    npz.write_bytes(raw)
    with pytest.raises(UserError, match="damaged"):
        load(npz)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"<!DOCTYPE html><html>quota</html>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path: Path, suffix: str, raw: bytes, message: str) -> None:
    path = tmp_path / f"own{suffix}"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=message):
        load(path)


def test_python_objects_are_never_loaded(npz: Path, malicious: tuple[bytes, Path]) -> None:
    raw, canary = malicious
    objects = np.empty(1, dtype=object)
    objects[0] = pickle.loads(pickle.dumps({"harmless": 1}))
    np.savez(npz, images=objects, labels=LABELS)
    with pytest.raises(UserError, match="Python objects, which are never loaded"):
        load(npz)
    npz.write_bytes(raw)
    with pytest.raises(UserError, match="Python objects, which are never loaded"):
        load(npz)
    assert not canary.exists()


def test_a_single_array_is_refused(npz: Path) -> None:
    with npz.open("wb") as file:
        np.save(file, GREY)
    with pytest.raises(UserError, match=r"numpy\.savez"):
        load(npz)


def test_missing_says_what_to_give(tmp_path: Path) -> None:
    assert "dataset.path=FILE.npz" in (Arrays().missing() or "")
    assert str(tmp_path / "no.npz") in (Arrays(path=str(tmp_path / "no.npz")).missing() or "")
    with pytest.raises(UserError, match="not a file"):
        Arrays(path=str(tmp_path)).load(Preprocessing(), 0)
    (tmp_path / "own.csv").write_text("1,2")
    with pytest.raises(UserError, match=r"neither \.npz nor \.safetensors"):
        load(tmp_path / "own.csv")
    with pytest.raises(UserError, match=r"no use for dataset\.root"):
        Arrays(root="x", path="y")
