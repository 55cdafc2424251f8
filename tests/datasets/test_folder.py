"""Pictures in one folder a class."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robusteval.classifier import Preprocessing
from robusteval.datasets.base import Dataset
from robusteval.datasets.folder import Folder
from robusteval.datasets.pictures import reader
from robusteval.errors import UserError


def load(root: Path, **options: Any) -> Dataset:
    source = Folder(root=str(root), **options)
    assert source.missing() is None
    return source.load(Preprocessing(), seed=0)


@pytest.fixture
def root(tmp_path: Path, picture: Any) -> Path:
    root = tmp_path / "pictures"
    for seed, name in enumerate(
        ["dog/b.png", "dog/a.PNG", "cat/z.png", "cat/deep/y.png", "eel/x.jpg", "eel/.hidden.png"]
    ):
        picture(root / name, seed=seed)
    (root / "dog" / "notes.txt").write_text("no picture")
    (root / ".cache").mkdir()
    (root / "empty").mkdir()
    return root


def test_classes_are_the_folders_in_order(root: Path) -> None:
    data = load(root)
    assert data.class_names == ("cat", "dog", "eel", "empty")
    assert data.labels.tolist() == [0, 0, 1, 1, 2]
    files = [root / name for name in ("cat/deep/y.png", "cat/z.png", "dog/a.PNG", "dog/b.png", "eel/x.jpg")]
    assert torch.equal(data.images(range(5)), reader(files, Preprocessing())(np.arange(5)))
    assert data.notes == ()
    assert load(root, mode="L").images([0, 1]).shape == (2, 1, 10, 12)


def test_a_subset_is_of_the_same_pictures(root: Path) -> None:
    whole, part = load(root), load(root, n=3)
    assert torch.equal(part.images(range(3)), whole.images(part.ids))
    assert (part.labels == whole.labels[part.ids]).all()


def test_the_digest_does_not_hang_on_the_place_but_on_names_and_sizes(root: Path, tmp_path: Path) -> None:
    before = load(root).digest
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    assert load(moved).digest == before
    (moved / "dog/b.png").rename(moved / "dog/c.png")
    assert load(moved).digest != before
    with (root / "cat/z.png").open("ab") as file:
        file.write(b"\0")
    assert load(root).digest != before


def test_numbers_are_sorted_as_numbers_and_it_says_so(tmp_path: Path, picture: Any) -> None:
    for number in range(12):
        picture(tmp_path / str(number) / "a.png", seed=number)
    data = load(tmp_path)
    assert data.class_names == tuple(str(number) for number in range(12))
    assert data.labels.tolist() == list(range(12))
    assert torch.equal(data.images([2]), reader([tmp_path / "2/a.png"], Preprocessing())(np.array([0])))
    assert len(data.notes) == 1
    assert "sorted as numbers" in data.notes[0]
    assert "'11' is label 11" in data.notes[0]


@pytest.mark.parametrize("folders", [["0", "1", "3"], ["2", "3"], ["1", "01", "2"], ["5"]])
def test_numbers_that_leave_the_labels_open_are_refused(tmp_path: Path, picture: Any, folders: list[str]) -> None:
    for folder in folders:
        picture(tmp_path / folder / "a.png")
    with pytest.raises(UserError, match="labels are unclear"):
        load(tmp_path)


def test_numbers_from_one_are_labels_from_zero(tmp_path: Path, picture: Any) -> None:
    for number in ("1", "2", "10", *map(str, range(3, 10))):
        picture(tmp_path / number / "a.png")
    data = load(tmp_path)
    assert "'1' is label 0, '10' is label 9" in data.notes[0]


def test_wrong_folders_are_refused_with_what_to_do(tmp_path: Path, picture: Any) -> None:
    assert "dataset.root=FOLDER" in (Folder().missing() or "")
    assert str(tmp_path / "absent") in (Folder(root=str(tmp_path / "absent")).missing() or "")
    with pytest.raises(UserError, match="no sub-folders"):
        load(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(UserError, match="no pictures"):
        load(tmp_path)
    picture(tmp_path / "level/train/cat/a.png")
    picture(tmp_path / "level/val/cat/a.png")
    with pytest.raises(UserError, match="train, val, which are no classes"):
        load(tmp_path / "level")
    with pytest.raises(UserError, match=r"no use for dataset\.path"):
        Folder(root=str(tmp_path), path="x")
