"""ImageNet in its two layouts: labels by WordNet id, whichever way they are written down."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from timm.data.imagenet_info import ImageNetInfo

from robusteval.classifier import Preprocessing
from robusteval.datasets import imagenet
from robusteval.datasets.base import Dataset
from robusteval.datasets.imagenet import ImageNet
from robusteval.errors import UserError

WNIDS = ImageNetInfo().label_names()
LABELS = [500, 3, 999, 0, 3, 500]  # of pictures 1 to 6
SMALL = Preprocessing(resize=10, crop=(8, 8))


@pytest.fixture(autouse=True)
def _no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGENET_ROOT", raising=False)


def name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def by_class(folder: Path, picture: Any) -> None:
    for number, label in enumerate(LABELS, 1):
        made = picture(folder / WNIDS[label] / f"{number}.png", seed=number)
        made.rename(made.with_name(name(number)))


def flat(folder: Path, picture: Any) -> None:
    for number in range(1, 7):
        made = picture(folder / f"{number}.png", seed=number)
        made.rename(folder / name(number))


def load(root: Path, n: int | None = None, preprocessing: Preprocessing = SMALL) -> Dataset:
    source = ImageNet(root=str(root), n=n)
    assert source.missing() is None
    return source.load(preprocessing, seed=1)


def kaggle(path: Path) -> None:
    with (path / "LOC_val_solution.csv").open("w", newline="") as file:
        rows = [(Path(name(number)).stem, f"{WNIDS[label]} 1 2 3 4 ") for number, label in enumerate(LABELS, 1)]
        csv.writer(file).writerows([("ImageId", "PredictionString"), *reversed(rows)])


def caffe(path: Path) -> None:
    (path / "val.txt").write_text("".join(f"{name(number)} {label}\n" for number, label in enumerate(LABELS, 1)))


def synsets(path: Path) -> None:
    text = "".join(f"{WNIDS[label]}\n" for label in LABELS)
    (path / "imagenet_2012_validation_synset_labels.txt").write_text(text)


def kit(path: Path) -> None:
    """The development kit numbers the classes in an order of its own: here, backwards."""
    folder = path / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    rows = [(1000 - label, wnid, 0) for label, wnid in enumerate(WNIDS)] + [(1001, "n00000001", 5)]
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("num_children", "f8")]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)})
    lines = "".join(f"{1000 - label}\n" for label in LABELS)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)


@pytest.mark.parametrize("below", ["val", ".", "ILSVRC/Data/CLS-LOC/val"])
def test_folders_by_wordnet_id(tmp_path: Path, picture: Any, below: str) -> None:
    by_class(tmp_path / below, picture)
    data = load(tmp_path)
    assert data.labels.tolist() == LABELS
    assert data.ids.tolist() == list(range(6))
    assert data.class_names is not None
    assert [data.class_names[label] for label in (0, 999)] == [
        "tench, Tinca tinca",
        "toilet tissue, toilet paper, bathroom tissue",
    ]
    assert data.images([5, 0]).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("labels", [kaggle, caffe, synsets, kit])
def test_the_flat_layout_gives_the_same_dataset(tmp_path: Path, picture: Any, labels: Any) -> None:
    by_class(tmp_path / "classes" / "val", picture)
    flat(tmp_path / "flat" / "val", picture)
    labels(tmp_path / "flat")
    ours, theirs = load(tmp_path / "classes"), load(tmp_path / "flat")
    assert theirs.labels.tolist() == LABELS
    assert ours.digest == theirs.digest
    assert torch.equal(ours.images(range(6)), theirs.images(range(6)))
    assert load(tmp_path / "classes", 3).ids.tolist() == load(tmp_path / "flat", 3).ids.tolist()


def test_a_part_of_the_classes_keeps_its_labels_and_numbers(tmp_path: Path, picture: Any) -> None:
    by_class(tmp_path, picture)
    for file in (tmp_path / WNIDS[3]).iterdir():
        file.unlink()
    (tmp_path / WNIDS[3]).rmdir()
    data = load(tmp_path)
    assert data.ids.tolist() == [0, 2, 3, 5]
    assert data.labels.tolist() == [500, 999, 0, 500]


def test_pictures_of_other_names_are_counted_by_class_and_name(tmp_path: Path, picture: Any) -> None:
    for label, file in ((7, "b.png"), (7, "a.png"), (2, "c.png")):
        picture(tmp_path / WNIDS[label] / file)
    data = load(tmp_path)
    assert data.labels.tolist() == [2, 7, 7]
    assert data.ids.tolist() == [0, 1, 2]


def test_a_model_that_states_nothing_gets_the_usual_crop(tmp_path: Path, picture: Any) -> None:
    by_class(tmp_path, picture)
    stated = Preprocessing(resize=256, crop=(224, 224), interpolation="bilinear")
    assert torch.equal(load(tmp_path, 1, Preprocessing()).images([0]), load(tmp_path, 1, stated).images([0]))


def test_the_environment_gives_the_root(tmp_path: Path, picture: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    by_class(tmp_path / "val", picture)
    monkeypatch.setenv("IMAGENET_ROOT", str(tmp_path))
    assert ImageNet().missing() is None
    assert len(ImageNet().load(SMALL, 0)) == 6
    monkeypatch.setenv("IMAGENET_ROOT", str(tmp_path / "absent"))
    assert "IMAGENET_ROOT=" in (ImageNet().missing() or "")
    assert ImageNet(root=str(tmp_path)).missing() is None


def test_missing_says_what_where_and_what_to_do(tmp_path: Path, picture: Any) -> None:
    assert "neither dataset.root nor IMAGENET_ROOT is set" in (ImageNet().missing() or "")
    (tmp_path / "train").mkdir()
    sentence = ImageNet(root=str(tmp_path)).missing()
    assert sentence is not None
    assert sentence.startswith(f"dataset.root={tmp_path} holds no ImageNet validation pictures")
    flat(tmp_path / "val", picture)
    assert "LOC_val_solution.csv" in (ImageNet(root=str(tmp_path)).missing() or "")
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n" * 6)
    assert "LOC_val_solution.csv" in (ImageNet(root=str(tmp_path)).missing() or ""), "of no use without meta.mat"
    with pytest.raises(UserError, match="no file of labels"):
        ImageNet(root=str(tmp_path)).load(SMALL, 0)


def test_a_class_that_is_not_of_2012_is_refused(tmp_path: Path, picture: Any) -> None:
    picture(tmp_path / "n00000001" / "a.png")
    with pytest.raises(UserError, match=r"n00000001, which is none of the 1000 classes"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("LOC_val_solution.csv", "ImageId,PredictionString\nILSVRC2012_val_00000001,n99999999 1 2 3 4\n"),
        ("LOC_val_solution.csv", "<html>\n<body>"),
        ("LOC_val_solution.csv", "ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1\n"),
        ("val.txt", f"{name(1)} 1000\n"),
        ("val.txt", "0 1 2\n"),
        ("val.txt", "picture.jpg 3\n"),
        ("imagenet_2012_validation_synset_labels.txt", "tench\n"),
    ],
)
def test_wrong_files_of_labels_are_named(tmp_path: Path, picture: Any, file: str, text: str) -> None:
    flat(tmp_path, picture)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=str(tmp_path / file)):
        load(tmp_path)


def test_a_wrong_meta_mat_is_named(tmp_path: Path, picture: Any) -> None:
    flat(tmp_path, picture)
    kit(tmp_path)
    meta = tmp_path / "ILSVRC2012_devkit_t12" / "data" / "meta.mat"
    for raw in (b"", b"<html></html>", meta.read_bytes()[:300], meta.read_bytes()[:5000]):
        meta.write_bytes(raw)
        with pytest.raises(UserError, match=str(meta)):
            load(tmp_path)


def test_the_leaderboards_pictures_are_found_by_their_numbers(
    tmp_path: Path, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagenet, "imagenet_pictures", lambda: (2, 3, 6))
    whole = []
    for layout, make in (("classes", by_class), ("flat", flat)):
        make(tmp_path / layout / "val", picture)
        caffe(tmp_path / layout)
        data = ImageNet(root=str(tmp_path / layout), subset="robustbench").load(SMALL, seed=1)
        assert data.ids.tolist() == [1, 2, 5]
        assert data.labels.tolist() == [LABELS[number] for number in (1, 2, 5)]
        whole.append(data)
    assert whole[0].digest == whole[1].digest
    assert torch.equal(whole[0].images([0, 2]), load(tmp_path / "classes").images([1, 5]))
    drawn = ImageNet(root=str(tmp_path / "flat"), subset="robustbench", n=2).load(SMALL, seed=1)
    assert set(drawn.ids.tolist()) < {1, 2, 5}
    (tmp_path / "flat" / "val" / name(3)).unlink()
    with pytest.raises(UserError, match=r"subset=robustbench needs 3 .* lacks 1 of them"):
        ImageNet(root=str(tmp_path / "flat"), subset="robustbench").load(SMALL, seed=1)


def test_pictures_without_numbers_are_no_leaderboards(tmp_path: Path, picture: Any) -> None:
    picture(tmp_path / WNIDS[2] / "c.png")
    with pytest.raises(UserError, match="lacks 5000 of them"):
        ImageNet(root=str(tmp_path), subset="robustbench").load(SMALL, seed=1)
