"""Sizes of batches, the way onto a device, which path a device takes."""

import numpy as np
import pytest
import torch

from robusteval.attacks import geometry, hyperplane
from robusteval.attacks.asking import may_ask, unasked
from robusteval.attacks.hyperplane import onto_hyperplane
from robusteval.engine.device_path import bucket
from robusteval.engine.devices import path_for
from robusteval.engine.jobs import outranks
from robusteval.engine.transfer import to_device, to_host


@pytest.mark.parametrize(
    ("slots", "sizes"),
    [
        (1, {16}),
        (16, {16}),
        (40, {48, 32, 16}),
        (64, {64, 32, 16}),
        (100, {112, 64, 32, 16}),
        (256, {256, 128, 64, 32, 16}),
    ],
)
def test_batches_have_few_sizes_that_hold_the_jobs(slots: int, sizes: set[int]) -> None:
    found = [bucket(jobs, slots) for jobs in range(1, slots + 1)]
    assert set(found) == sizes
    assert all(size >= jobs for jobs, size in enumerate(found, start=1))
    assert found == sorted(found)
    for jobs, size in enumerate(found, start=1):
        assert not any(jobs <= smaller < size for smaller in sizes), "the smallest that holds them"


@pytest.mark.parametrize("values", [np.arange(5), np.array([0.5, np.nan], dtype=np.float32), torch.eye(3)])
def test_numbers_arrive_as_they_left(values: np.ndarray | torch.Tensor) -> None:
    there = to_device(values, torch.device("cpu"))
    assert np.array_equal(to_host(there), np.asarray(values), equal_nan=True)
    assert there.data_ptr() == (values.data_ptr() if isinstance(values, torch.Tensor) else values.ctypes.data)


def test_a_gpu_takes_the_device_path_by_itself() -> None:
    assert path_for(torch.device("cpu"), "auto") == "host"
    assert path_for(torch.device("cuda:1"), "auto") == "device"
    assert path_for(torch.device("cuda:1"), "host") == "host"
    assert path_for(torch.device("cpu"), "device") == "device"


@pytest.mark.parametrize("point", ["first_success", "max_loss"])
def test_which_point_outranks_which(point: str) -> None:
    """Broken before others, then the higher loss; a first success stays."""
    for missed in (False, True):
        for broken in (False, True):
            for higher in (False, True):
                better = (missed, higher) > (broken, not higher)  # as pairs in order
                wanted = better and not (broken and point == "first_success")
                for made in (torch.tensor, np.array):
                    marks = (made([mark]) for mark in (missed, broken, higher))
                    assert bool(outranks(*marks, point)[0]) == wanted, (missed, broken, higher)  # pyright: ignore


@pytest.mark.parametrize("cached", [131072, 1000], ids=["all rows at once", "four rows at a time, then one"])
def test_update_rules_give_the_same_bits_without_questions(cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the rim of balls, where rounding has to be mended, and for planes out of reach, where a search ends late."""
    for module in (geometry, hyperplane):
        monkeypatch.setattr(module, "_CACHED", cached)
    numbers = torch.Generator().manual_seed(1)
    x = torch.rand(33, 3, 9, 9, generator=numbers)
    points = x + torch.randn(x.shape, generator=numbers) * torch.logspace(-4, 1, 33)[:, None, None, None]
    eps = torch.rand(33, generator=numbers) * 3
    lo, hi = torch.zeros_like(x), torch.ones_like(x)
    w, gap = torch.randn(33, 243, generator=numbers), torch.randn(33, generator=numbers) * torch.logspace(-3, 3, 33)

    def everything() -> list[torch.Tensor]:
        flat, low, high = x.flatten(1), lo.flatten(1), hi.flatten(1)
        return [
            *(geometry.project(points, x, lo, hi, eps, norm) for norm in ("linf", "l2", "l1")),
            geometry.project_l1_in_box(points, x, lo, hi, eps),
            *(onto_hyperplane(flat, w, gap, low, high, norm) for norm in ("linf", "l2", "l1")),
        ]

    assert may_ask()
    asked = everything()
    with unasked():
        assert not may_ask()
        silent = everything()
    assert may_ask()
    for one, other in zip(asked, silent, strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()
