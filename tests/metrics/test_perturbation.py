"""Planted perturbations: what was planted is what comes out, within its interval."""

import math

import numpy as np
import pytest

from robusteval.metrics.perturbation import Shapes, area, border, describe, interval
from robusteval.metrics.spectrum import bands, bins, radial


def noise(n: int = 60, channels: int = 3, height: int = 12, width: int = 10) -> np.ndarray:
    """Perturbations [n, C, H, W] of a size that varies from image to image, equally large everywhere."""
    numbers = np.random.default_rng(4)
    return numbers.normal(size=(n, channels, height, width)) * numbers.uniform(0.5, 2, (n, 1, 1, 1))


def ring_of(delta: np.ndarray, r: int) -> np.ndarray:
    """Return the mask of the r outermost pixels, by a loop."""
    height, width = delta.shape[2:]
    return np.array([[min(i, j, height - 1 - i, width - 1 - j) < r for j in range(width)] for i in range(height)])


def ratios(delta: np.ndarray) -> list[dict]:
    shapes = Shapes.of(delta)
    return border(shapes.mass, shapes.rings, *delta.shape[2:], seed=0)


def test_of_an_even_perturbation_the_border_ratio_is_one_within_its_interval() -> None:
    for row in ratios(noise()):
        assert row["ratio"]["low"] <= 1 <= row["ratio"]["high"]
        assert row["ratio"]["high"] - row["ratio"]["low"] < 0.2
        assert row["mass_share"]["low"] <= row["area_share"] <= row["mass_share"]["high"]
    for row in ratios(np.full((5, 1, 12, 10), 0.1)):
        assert row["ratio"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_of_a_ring_alone_it_is_infinite_and_of_the_interior_zero() -> None:
    planted = noise() * ring_of(noise(), 2)
    one, two, three, four = ratios(planted)
    assert two["ratio"] == {"value": None, "low": None, "high": None, "infinite": True}
    assert two["mass_share"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert three["ratio"]["infinite"]
    assert four["ratio"]["infinite"]
    assert one["ratio"]["value"] is not None
    assert 0.3 < one["mass_share"]["value"] < 0.7  # the outer half of the ring that was planted
    inside = ratios(noise() * ~ring_of(noise(), 2))
    assert [row["ratio"]["value"] for row in inside[:2]] == [0.0, 0.0]
    assert inside[2]["ratio"]["value"] > 0


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_ring_so_many_times_as_strong_is_found_within_its_interval(factor: float) -> None:
    delta = noise(n=150)
    planted = np.where(ring_of(delta, 2), factor * delta, delta)
    row = ratios(planted)[1]
    assert row["ratio"]["low"] <= factor <= row["ratio"]["high"]
    ring, size = ring_of(delta, 2), np.abs(planted)
    assert row["ratio"]["value"] == pytest.approx(size[:, :, ring].mean() / size[:, :, ~ring].mean())
    assert row["mass_share"]["value"] == pytest.approx(size[:, :, ring].sum() / size.sum())
    assert row["area_share"] == pytest.approx(ring.mean())


def test_rings_that_leave_no_interior_are_left_out() -> None:
    assert [row["ring"] for row in ratios(noise(height=6, width=9))] == [1, 2]
    assert ratios(noise(height=2, width=2)) == []
    assert area(1, 3, 3) == pytest.approx(8 / 9)


def test_nothing_has_no_ratio() -> None:
    assert ratios(np.zeros((3, 1, 8, 8)))[0]["ratio"] == {"value": None, "low": None, "high": None}


def test_the_interval_covers_as_often_as_it_says() -> None:
    """The mean of an exponential from 80 images, 120 times: the percentile interval covers 92 to 95 % of the time."""
    numbers = np.random.default_rng(0)
    covered = 0
    for _ in range(120):
        x = numbers.exponential(size=(80, 1))
        found = interval(np.hstack([x, np.ones((80, 1))]), lambda sums: sums[:, 0] / sums[:, 1], seed=1)
        covered += found["low"] <= 1 <= found["high"]
    assert 0.86 < covered / 120 < 0.99


def test_the_seed_decides_the_interval_and_parts_join_to_the_whole() -> None:
    delta = noise(n=20)
    whole, parts = Shapes.of(delta), Shapes.joined([Shapes.of(delta[:7]), Shapes.of(delta[7:])])
    assert len(parts) == 20
    assert describe(whole, 3) == describe(parts, 3)
    assert describe(whole, 3)["border"] != describe(whole, 4)["border"]


def test_profiles_channels_and_map_are_means_of_absolute_values() -> None:
    delta = noise(n=9) * np.array([1.0, 2.0, 5.0])[:, None, None]
    found = describe(Shapes.of(delta), 0)
    mean = np.abs(delta).mean(axis=(0, 1))
    np.testing.assert_allclose(found["rows"], mean.mean(axis=1), rtol=1e-8)
    np.testing.assert_allclose(found["columns"], mean.mean(axis=0), rtol=1e-8)
    assert found["mean_absolute"]["value"] == pytest.approx(np.abs(delta).mean())
    due = np.abs(delta).sum(axis=(0, 2, 3)) / np.abs(delta).sum()
    np.testing.assert_allclose([row["value"] for row in found["channels"]], due, rtol=1e-8)
    assert all(row["low"] < row["value"] < row["high"] for row in found["channels"])


# ---------------------------------------------------------------- frequencies


@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
def test_all_power_is_the_squared_length(size: tuple[int, int]) -> None:
    delta = noise(n=4, height=size[0], width=size[1])
    squared = (delta**2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(radial(delta).sum(axis=1), squared)
    np.testing.assert_allclose(bands(delta).sum(axis=1), squared)
    index, sizes = bins(*size)
    assert sizes.sum() == size[0] * size[1]
    assert index[0, 0] == 0


@pytest.mark.parametrize(("cycles", "band"), [(0, 0), (2, 0), (3, 1), (5, 1), (6, 2), (8, 2)])
def test_a_wave_lies_in_its_bin_and_band(cycles: int, band: int) -> None:
    """Along one side of 16 pixels: the bands end at 16/6 and 16/3 cycles."""
    wave = np.cos(2 * math.pi * cycles * np.arange(16) / 16)
    for delta in (np.tile(wave, (16, 1)), np.tile(wave, (16, 1)).T):
        share = radial(delta[None, None])[0]
        assert share.argmax() == cycles
        assert share[cycles] == pytest.approx(share.sum())
        assert bands(delta[None, None])[0].argmax() == band
    found = describe(Shapes.of(np.tile(wave, (3, 1, 16, 1))), 0)
    assert found["bands"][band]["value"] == pytest.approx(1)
    assert found["radial"][cycles]["frequency"] == cycles / 16


def test_white_noise_is_flat() -> None:
    found = describe(Shapes.of(np.random.default_rng(2).normal(size=(300, 1, 16, 16))), 0)
    power = [row["power"] for row in found["radial"]]
    assert max(power) / min(power) < 1.35
