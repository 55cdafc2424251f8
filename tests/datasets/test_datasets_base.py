"""Subsets, digests, and what ``Dataset.images`` promises."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robusteval.datasets.base import Dataset, data_root, digest, from_memory, select
from robusteval.errors import UserError


def dataset(grey: np.ndarray, n: int | None = None, seed: int = 0) -> Dataset:
    labels = np.arange(len(grey)) % 3
    return from_memory(name="toy", grey=grey, labels=labels, class_names=None, n=n, seed=seed, origin="dataset=toy")


@pytest.fixture
def grey() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 3, 4, 5), dtype=np.uint8)


def test_images_are_grey_values_over_255(grey: np.ndarray) -> None:
    images = dataset(grey).images([7, 3, 3])
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    assert torch.equal(images, torch.from_numpy(grey[[7, 3, 3]].astype(np.float32) / np.float32(255)))


def test_a_subset_keeps_ids_labels_and_images_together(grey: np.ndarray) -> None:
    part = dataset(grey, n=20, seed=4)
    assert len(part) == 20
    assert (np.diff(part.ids) > 0).all()
    assert (part.labels == part.ids % 3).all()
    expected = torch.from_numpy(grey[part.ids].astype(np.float32) / np.float32(255))
    assert torch.equal(part.images(range(20)), expected)


def test_subsets_follow_the_seed_and_are_not_the_first_images(grey: np.ndarray) -> None:
    assert (dataset(grey, 10, 1).ids == dataset(grey, 10, 1).ids).all()
    assert (dataset(grey, 10, 1).ids != dataset(grey, 10, 2).ids).any()
    drawn = np.bincount(np.concatenate([select(10, 3, seed, "toy") for seed in range(300)]), minlength=10)
    # 300 draws of 3 of 10: each position is expected 90 times with a standard deviation of 7.9
    assert abs(drawn - 90).max() < 40


def test_more_than_there_are_is_refused_with_both_numbers() -> None:
    with pytest.raises(UserError, match=r"dataset\.n=51 is more than the 50 images of dataset=toy"):
        select(50, 51, 0, "toy")


def test_the_digest_hangs_on_name_ids_labels_and_content() -> None:
    ids, labels = np.arange(3), np.array([0, 1, 2])
    base = digest("toy", ids, labels, [b"ab"])
    assert base == digest("toy", ids.astype(np.int32), labels, [b"ab"])
    others = [
        digest("joy", ids, labels, [b"ab"]),
        digest("toy", ids + 1, labels, [b"ab"]),
        digest("toy", ids, labels[::-1], [b"ab"]),
        digest("toy", ids, labels, [b"ac"]),
        digest("toy", ids, labels, [b"a", b"b"]),
    ]
    assert len({base, *others}) == 6


def test_the_digest_is_a_sha256_of_length_and_part() -> None:
    parts = (b"x", np.array([5], "<i8").tobytes(), np.array([1], "<i8").tobytes(), b"c")
    whole = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    assert digest("x", np.array([5]), np.array([1]), [b"c"]) == hashlib.sha256(whole).hexdigest()


def test_one_changed_pixel_changes_the_digest(grey: np.ndarray) -> None:
    before = dataset(grey).digest
    grey[13, 0, 0, 0] ^= 1
    assert dataset(grey).digest != before


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "not finite"),
        (float("inf"), "not finite"),
        (float("-inf"), "not finite"),
        (-0.5, "look normalised"),
        (-2.0, "look normalised"),
        (1.02, "look normalised"),
        (255.0, "grey values from 0 to 255"),
    ],
)
def test_pixels_outside_the_range_are_refused_with_the_likely_cause(
    grey: np.ndarray, value: float, message: str
) -> None:
    images = torch.rand(50, 3, 4, 5)
    images[45, 1, 2, 3] = value
    toy = replace(dataset(grey), read=lambda positions: images[torch.from_numpy(positions)])
    toy.images(range(40))
    with pytest.raises(UserError, match=f"dataset=toy.*{message}"):
        toy.images(range(40, 50))


def test_rounding_outside_the_box_is_clamped(grey: np.ndarray) -> None:
    images = torch.tensor([-0.009, 0.5, 1.009]).view(1, 1, 1, 3)
    toy = replace(dataset(grey), read=lambda positions: images)
    assert toy.images([0]).flatten().tolist() == [0.0, 0.5, 1.0]


def test_the_root_is_the_key_then_the_environment_then_a_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ROBUSTEVAL_DATA", raising=False)
    assert data_root(None) == tmp_path / ".cache/robusteval/data"
    monkeypatch.setenv("ROBUSTEVAL_DATA", "/there")
    assert data_root(None) == Path("/there")
    assert data_root("~/here") == tmp_path / "here"
