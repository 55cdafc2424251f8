"""Decoding, resizing and cropping against torchvision's transforms, the reference for published models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from robusteval.classifier import Preprocessing
from robusteval.datasets.pictures import decode, reader
from robusteval.errors import UserError

SIZES = [(12, 10), (10, 12), (31, 17), (17, 31), (8, 8), (7, 40), (5, 5)]  # width, height


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    ("resize", "crop"), [(9, (8, 8)), (None, (7, 9)), (None, (8, 8)), (13, None), ((6, 11), (5, 5)), (8, (8, 8))]
)
def test_resize_and_crop_are_torchvisions(
    picture: Any, tmp_path: Path, size: tuple[int, int], interpolation: Any, resize: Any, crop: Any
) -> None:
    file = picture(tmp_path / "a.png", size=size)
    steps: list[Any] = []
    if resize is not None:
        steps.append(transforms.Resize(resize, transforms.InterpolationMode(interpolation)))
    if crop is not None:
        steps.append(transforms.CenterCrop(crop))
    with Image.open(file) as opened:
        expected: Any = transforms.Compose([*steps, transforms.ToTensor()])(opened.convert("RGB"))
    preprocessing = Preprocessing(resize=resize, crop=crop, interpolation=interpolation)
    got = reader([file], preprocessing)(np.array([0]))
    assert torch.equal(got[0], expected)


def test_order_follows_the_positions(picture: Any, tmp_path: Path) -> None:
    files = [picture(tmp_path / f"{i}.png", seed=i) for i in range(40)]
    read = reader(files, Preprocessing())
    order = np.random.default_rng(0).permutation(40)
    for row, position in zip(read(order), order, strict=True):
        with Image.open(files[position]) as opened:
            assert torch.equal(
                (row * 255).round().to(torch.uint8), torch.from_numpy(np.asarray(opened).transpose(2, 0, 1).copy())
            )


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_other_kinds_of_pictures_become_three_channels(picture: Any, tmp_path: Path, mode: str) -> None:
    file = picture(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"), mode=mode)
    assert decode(file, Preprocessing()).shape == (3, 10, 12)
    assert decode(file, Preprocessing(), "L").shape == (1, 10, 12)


def test_sixteen_bit_pictures_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "deep.png"
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(file)
    with pytest.raises(UserError, match=rf"{file} has pixels of kind I;16"):
        decode(file, Preprocessing())


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_a_picture_cut_off_anywhere_is_named(picture: Any, tmp_path: Path, suffix: str) -> None:
    raw = picture(tmp_path / f"whole.{suffix}", size=(64, 64)).read_bytes()
    file = tmp_path / f"cut.{suffix}"
    for length in (0, 1, 10, 30, len(raw) // 2, int(len(raw) * 0.9)):
        file.write_bytes(raw[:length])
        with pytest.raises(UserError, match=str(file)):
            reader([file], Preprocessing(crop=(8, 8)))(np.array([0]))


def test_a_page_in_place_of_a_picture_is_named_for_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_text("<html><body>quota exceeded</body></html>")
    with pytest.raises(UserError, match=rf"{file} cannot be read: it is an HTML page"):
        decode(file, Preprocessing())
    with pytest.raises(UserError, match=r"absent\.png"):
        decode(tmp_path / "absent.png", Preprocessing())


def test_pictures_of_two_sizes_need_a_crop(picture: Any, tmp_path: Path) -> None:
    files = [picture(tmp_path / "a.png"), picture(tmp_path / "b.png", size=(9, 9))]
    with pytest.raises(UserError, match=r"a\.png and .*b\.png have different sizes"):
        reader(files, Preprocessing())(np.array([0, 1]))
    assert reader(files, Preprocessing(crop=(8, 8)))(np.array([0, 1])).shape == (2, 3, 8, 8)
