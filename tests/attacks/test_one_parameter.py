"""Each transform against another derivation of it, and each exhaustive search against a loop over all numbers."""

import colorsys
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy import ndimage
from torch import Tensor
from torchvision.transforms import functional as vision

from robusteval import registry
from robusteval.attacks.contrast import grey
from robusteval.attacks.frequencies import filtered, radial_mask, square_mask
from robusteval.attacks.one_parameter import OneParameter
from robusteval.classifier import Classifier, Preprocessing
from robusteval.closed_form import small_convnet
from robusteval.datasets.pictures import reader
from robusteval.engine.direct import search
from robusteval.errors import UserError
from robusteval.models.window import check, widened
from robusteval.threat import ThreatModel

UNBOUNDED = ThreatModel(norm="unbounded", eps=None)
Array = np.ndarray


def pictures(n: int = 6, channels: int = 3, size: tuple[int, int] = (9, 8)) -> Tensor:
    """8-bit images of blocks, so that the networks have something to see."""
    numbers = np.random.default_rng(3)
    blocks = numbers.integers(0, 256, (n, channels, 3, 2)).repeat(3, 2).repeat(4, 3)[:, :, : size[0], : size[1]]
    return torch.from_numpy((blocks + numbers.integers(-60, 61, blocks.shape)).clip(0, 255)).float() / 255


# ---------------------------------------------------------------- one image, one number, done another way


def _pixels(x: Array) -> Image.Image:
    return Image.fromarray((x * 255).round().astype(np.uint8).transpose(1, 2, 0))


def _back(picture: Image.Image) -> Array:
    return np.asarray(picture).transpose(2, 0, 1) / 255


def _posterized(x: Array, bits: float) -> Array:
    return _back(ImageOps.posterize(_pixels(x), int(bits)))


def _contrasted(x: Array, factor: float) -> Array:
    return vision.adjust_contrast(torch.from_numpy(x), factor).numpy()


def _hued(x: Array, turn: float) -> Array:
    out = np.empty_like(x)
    for i, j in np.ndindex(*x.shape[1:]):
        hue, saturation, value = colorsys.rgb_to_hsv(*x[:, i, j])
        out[:, i, j] = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    return out


def _rotated(x: Array, angle: float) -> Array:
    turn = {"reshape": False, "order": 1, "mode": "grid-constant", "axes": (2, 1)}
    return np.clip(ndimage.rotate(x, angle, **turn), 0, 1)


def _moved(x: Array, window: float) -> Array:
    down, across = divmod(int(window), 3)
    wrapped = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="wrap")
    return wrapped[:, down : down + x.shape[1], across : across + x.shape[2]]


def _square(x: Array, cutoff: float, high: bool) -> Array:
    """The published filter, in float64: the spectrum outside (inside) the square set to zero, entry by entry."""
    spectrum = np.fft.fftshift(np.fft.fft2(x), axes=(1, 2))
    height, width = x.shape[1:]
    reach = 1 - cutoff if high else cutoff
    tall, wide = int(reach * (height // 2)), int(reach * (width // 2))
    for i, j in np.ndindex(height, width):
        inside = -tall <= i - height // 2 < tall and -wide <= j - width // 2 < wide
        if inside == high:
            spectrum[:, i, j] = 0
    return np.clip(np.fft.ifft2(np.fft.ifftshift(spectrum, axes=(1, 2))).real, 0, 1)


def _jpeg(x: Array, quality: float) -> Array:
    file = io.BytesIO()
    _pixels(x).save(file, "JPEG", quality=int(quality))
    return _back(Image.open(file))


OTHERWISE: dict[str, Callable[[Array, float], Array]] = {
    "posterize": _posterized,
    "invert": lambda x, on: 1 - x if on else x,
    "gamma": lambda x, gamma: x**gamma,
    "contrast": _contrasted,
    "brightness": lambda x, shift: np.clip(x + shift, 0, 1),
    "hue": _hued,
    "rotate": _rotated,
    "translate": _moved,
    "low_pass": lambda x, cutoff: _square(x, cutoff, high=False),
    "high_pass": lambda x, cutoff: _square(x, cutoff, high=True),
    "jpeg": _jpeg,
    "solarize": lambda x, threshold: np.where(x >= threshold, 1 - x, x),
}
FINITE = {"solarize": 257, "posterize": 8, "invert": 2, "translate": 9, "jpeg": 100}
# The number that leaves an image alone.
IDENTITY = {"posterize": 8, "invert": 0, "gamma": 1, "brightness": 0, "hue": 0, "rotate": 0, "translate": 4}


def attack(name: str, **options: Any) -> OneParameter:
    return registry.lookup(registry.ATTACKS, "attack.method", name)(**options)


def test_every_attack_of_the_family_is_tried() -> None:
    kinds = [registry.lookup(registry.ATTACKS, "attack.method", name) for name in registry.ATTACKS]
    assert {kind.method for kind in kinds if issubclass(kind, OneParameter)} == set(OTHERWISE)


@pytest.mark.parametrize("name", OTHERWISE)
def test_the_exhaustive_search_equals_a_loop_over_all_numbers(name: str) -> None:
    """Points within 2e-6 of another derivation, and every verdict of every image and number that of a plain loop."""
    network, images = small_convnet(channels=3, seed=4), pictures(4)
    with torch.no_grad():
        labels = network(images).argmax(1)
        tried = attack(name, mode="exhaustive")
        numbers = tried.grid().tolist()
        assert len(numbers) == FINITE.get(name, 101)
        made = torch.stack(
            [torch.from_numpy(OTHERWISE[name](x.double().numpy(), p).copy()) for x in images for p in numbers]
        ).float()
        wrong = network(made).argmax(1).view(len(images), -1) != labels[:, None]
    each = images.repeat_interleave(len(numbers), 0)
    ours = tried.apply(each, torch.tensor(numbers).float().repeat(len(images)))
    assert float((ours - made).abs().max()) < 2e-6
    assert float(ours.min()) >= 0
    assert float(ours.max()) <= 1
    board = search(tried, network, images, labels, UNBOUNDED)
    assert board.survey is not None
    assert torch.equal(board.survey.broken, wrong)
    assert torch.equal(board.broken, wrong.any(1))
    assert wrong.any(), "where nothing breaks nothing is shown"
    assert tried.exhaustive() == (name in FINITE)


@pytest.mark.parametrize("name", OTHERWISE)
def test_random_numbers_come_from_the_domain_and_fixed_is_the_given_one(name: str) -> None:
    tried, uniform = attack(name), torch.rand(4000, generator=torch.Generator().manual_seed(0))
    drawn, grid = tried.drawn(uniform), attack(name, mode="exhaustive").grid()
    assert grid.min() - 1e-6 <= drawn.min()
    assert drawn.max() <= grid.max() + 1e-6
    if name in FINITE and name != "solarize":
        values, counts = drawn.unique(return_counts=True)
        assert torch.equal(values.double(), grid)
        assert (counts - 4000 / len(grid)).abs().max() < 5 * (4000 / len(grid)) ** 0.5
    else:  # half of what is drawn lies below the middle of the grid
        assert abs(float((drawn < grid[len(grid) // 2]).float().mean()) - 0.5) < 0.04
    network, images = small_convnet(channels=3), pictures(4)
    labels = network(images).argmax(1)
    given = [1, -1] if name == "translate" else int(grid[1]) if name in ("posterize", "invert", "jpeg") else 0.25
    fixed = attack(name, mode="fixed", **{tried.named: given})
    number = 6.0 if name == "translate" else float(given)  # type: ignore[arg-type]
    board = search(fixed, network, images, labels, UNBOUNDED, stop="never")
    due = fixed.apply(images, torch.full((4,), number))
    moved = board.moved
    assert torch.equal(board.point[moved], due[moved])
    assert torch.equal(board.parameter[moved], torch.full((int(moved.sum()),), number))


@pytest.mark.parametrize("name", IDENTITY)
def test_one_number_leaves_every_bit_alone(name: str) -> None:
    images = pictures(3)
    same = attack(name).apply(images, torch.full((3,), float(IDENTITY[name])))
    assert torch.equal(same, images)


def test_modes_and_numbers_that_do_not_go_together_are_refused() -> None:
    for name in OTHERWISE:
        with pytest.raises(ValueError, match=r"mode=fixed needs .* and no other mode takes one"):
            attack(name, mode="fixed")
    with pytest.raises(ValueError, match="mode=random with bits=3"):
        attack("posterize", bits=3)
    with pytest.raises(ValueError, match=r"shift=\[2, 0\] is farther than reach=1"):
        attack("translate", mode="fixed", shift=(2, 0))
    assert "channels have no hue" in str(attack("hue").unfit((1, 8, 8)))
    assert "make no JPEG" in str(attack("jpeg").unfit((2, 8, 8)))
    assert "move them by less" in str(attack("translate", reach=4).unfit((3, 8, 8)))
    assert attack("jpeg").unfit((1, 8, 8)) is None
    assert "pillow" in str(attack("jpeg").library())


def test_grey_pictures_are_compressed_and_contrasted_too() -> None:
    x = pictures(1, channels=1)
    file = io.BytesIO()
    Image.fromarray((x[0, 0] * 255).round().byte().numpy()).save(file, "JPEG", quality=30)
    due = np.asarray(Image.open(file)) / np.float32(255)
    assert np.array_equal(attack("jpeg").apply(x, torch.tensor([30.0]))[0, 0].numpy(), due)
    assert torch.equal(grey(x), x)


# ---------------------------------------------------------------- frequencies


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (224, 224), (225, 225), (9, 14)])
@pytest.mark.parametrize("high", [False, True])
def test_square_masks_and_their_images_are_the_published_ones_bit_for_bit(size: tuple[int, int], high: bool) -> None:
    """The published steps in torch, for their eleven cutoffs: mask and image, every bit."""
    height, width = size
    x = torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))
    for written in [0.01, *np.arange(0.1, 0.99, 0.1), 0.99]:
        cutoff = 1 - written if high else written
        tall, wide = int(cutoff * (height // 2)), int(cutoff * (width // 2))
        mask = torch.full((height, width), float(high))
        top, left = height // 2 - tall, width // 2 - wide
        mask[top : top + 2 * tall, left : left + 2 * wide] = 0.0 if high else 1.0
        ours = square_mask(height, width, round(float(np.float32(written)), 6), high=high)
        assert torch.equal(ours.float(), mask), written
        spectrum = torch.fft.fftshift(torch.fft.fft2(x)) * mask.to(torch.complex64)
        due = torch.fft.ifft2(torch.fft.ifftshift(spectrum)).real.clip(0, 1)
        tried = attack("high_pass" if high else "low_pass")
        assert torch.equal(tried.apply(x[None], torch.tensor([written], dtype=torch.float32))[0], due), written


def test_radial_masks_by_hand() -> None:
    low, high = (radial_mask(5, 5, 0.5, high=high) for high in (False, True))
    radius = np.hypot(*np.mgrid[-2:3, -2:3]) / np.hypot(2, 2)
    assert np.array_equal(low.numpy(), radius <= 0.5)
    assert np.array_equal(high.numpy(), (radius >= 0.5) | (radius == 0))
    for size in ((8, 8), (7, 9)):
        x = torch.rand(1, *size, generator=torch.Generator().manual_seed(2))
        for side in (False, True):
            assert radial_mask(*size, 1.0, high=side).all()
            constant = filtered(x, radial_mask(*size, 0.0, high=False))
            assert torch.allclose(constant, x.mean().expand_as(x), atol=1e-6)
            assert torch.allclose(filtered(x, radial_mask(*size, 0.9, high=side)).mean(), x.mean(), atol=0.02)


# ---------------------------------------------------------------- windows


def test_the_nine_windows_of_a_larger_picture_are_cut_not_computed(tmp_path: Path) -> None:
    """A picture resized to 20 and cropped to 9 x 8 (odd and even margins), against crops of the picture itself."""
    numbers = np.random.default_rng(0)
    path = tmp_path / "picture.png"
    Image.fromarray(numbers.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
    whole = np.asarray(Image.open(path)).transpose(2, 0, 1)
    for crop in ((9, 8), (8, 9)):
        seen: list[Tensor] = []
        module = torch.nn.Identity()
        module.register_forward_pre_hook(lambda _, points: seen.append(points[0]))  # noqa: B023
        plain = Classifier(
            module=module, name="net", source="test", classes=2, preprocessing=Preprocessing(resize=20, crop=crop)
        )
        wide = widened(plain, 1)
        narrow, image = (reader([path], net.preprocessing)(np.arange(1))[0] for net in (plain, wide))
        check(wide, tuple(image.shape))  # type: ignore[arg-type]
        top, left = (round((20 - side) / 2) for side in crop)
        for window in range(9):
            moved = attack("translate", edge="window").apply(image[None], torch.tensor([float(window)]))
            wide.module(moved)
            down, across = top + window // 3 - 1, left + window % 3 - 1
            due = whole[:, down : down + crop[0], across : across + crop[1]]
            assert np.array_equal((seen[-1][0] * 255).round().numpy().astype(np.uint8), due), (crop, window)
            if window == 4:
                assert torch.equal(seen[-1][0], narrow)
    assert repr(wide.preprocessing) == repr(plain.preprocessing)


def test_windows_that_cannot_be_moved_are_refused() -> None:
    def net(preprocessing: Preprocessing) -> Classifier:
        module = torch.nn.Identity()
        return Classifier(module=module, name="net", source="test", classes=2, preprocessing=preprocessing)

    with pytest.raises(UserError, match="states no crop"):
        widened(net(Preprocessing()), 1)
    with pytest.raises(UserError, match="crops 224 of 225"):
        widened(net(Preprocessing(resize=225, crop=(224, 224))), 1)
    cifar = widened(net(Preprocessing(crop=(32, 32))), 1)
    with pytest.raises(UserError, match=r"needs images of 34 x 34 .* are of 32 x 32, with nothing around them"):
        check(cifar, (3, 32, 32))
    plain = net(Preprocessing())
    assert widened(plain, 0) is plain
