"""Losses against formulas worked out by hand in float64, and the gradients against finite differences."""

from typing import Any

import numpy as np
import pytest
import torch

from robusteval.attacks import losses
from robusteval.attacks.base import nearest_classes

Z = np.array([[1.0, 3.0, 0.5, 2.0, -1.0], [4.0, -2.0, 0.0, 3.5, 1.0], [0.0, 0.0, 1.0, 1.0, -3.0]])
Y = np.array([1, 3, 0])
T = np.array([0, 4, 3])


def by_hand(name: str, z: np.ndarray, y: int, t: int) -> float:
    others = [value for i, value in enumerate(z) if i != y]
    ordered = sorted(z, reverse=True)
    log_p = z - np.log(np.exp(z).sum())
    match name:
        case "ce":
            return -log_p[y]
        case "margin":
            return max(others) - z[y]
        case "dlr":
            return -(z[y] - max(others)) / (ordered[0] - ordered[2])
        case "targeted_ce":
            return log_p[t]
        case "targeted_dlr":
            return -(z[y] - z[t]) / (ordered[0] - (ordered[2] + ordered[3]) / 2)
    raise AssertionError(name)


@pytest.mark.parametrize("name", ["ce", "margin", "dlr", "targeted_ce", "targeted_dlr"])
def test_loss_is_the_formula(name: Any) -> None:
    ours = losses.evaluate(name, torch.from_numpy(Z), torch.from_numpy(Y), torch.from_numpy(T))
    due = [by_hand(name, z, y, t) for z, y, t in zip(Z, Y, T, strict=True)]
    assert ours.tolist() == pytest.approx(due, rel=1e-9)


def test_a_worked_example() -> None:
    """z = (1, 3, 0.5, 2, -1), y = 1, t = 0: margin 2 - 3; dlr -1 / (3 - 1); targeted (1 - 3) / (3 - (1 + 0.5)/2)."""
    z, y, t = torch.tensor(Z[:1]), torch.tensor([1]), torch.tensor([0])
    assert losses.margin(z, y).item() == -1
    assert losses.dlr(z, y).item() == pytest.approx(-0.5)
    assert losses.targeted_dlr(z, y, t).item() == pytest.approx(-2 / 2.25)


@pytest.mark.parametrize("name", ["ce", "margin", "dlr", "targeted_ce", "targeted_dlr"])
def test_gradients_agree_with_finite_differences(name: Any) -> None:
    z, y, t = (torch.from_numpy(a[:2]) for a in (Z, Y, T))  # without ties
    assert torch.autograd.gradcheck(lambda logits: losses.evaluate(name, logits, y, t), (z.clone().requires_grad_(),))


@pytest.mark.parametrize("name", ["margin", "dlr"])
def test_the_sign_says_whether_it_is_misclassified(name: Any) -> None:
    z = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    y = torch.arange(500) % 6
    assert torch.equal(losses.evaluate(name, z, y, y) > 0, z.argmax(1) != y)


def test_dlr_does_not_change_with_shift_and_scale() -> None:
    z, y, t = torch.from_numpy(Z), torch.from_numpy(Y), torch.from_numpy(T)
    assert torch.allclose(losses.dlr(7 * z + 3, y), losses.dlr(z, y))
    assert torch.allclose(losses.targeted_dlr(7 * z + 3, y, t), losses.targeted_dlr(z, y, t))


@pytest.mark.parametrize(
    ("name", "least"), [("ce", 2), ("margin", 2), ("dlr", 3), ("targeted_ce", 2), ("targeted_dlr", 4)]
)
def test_the_stated_number_of_classes_is_enough_and_one_less_is_not(name: Any, least: int) -> None:
    assert losses.min_classes(name) == least
    y = torch.tensor([0])
    assert losses.evaluate(name, torch.randn(1, least), y, y + 1).isfinite().all()
    if least > 2:
        with pytest.raises(RuntimeError):
            losses.evaluate(name, torch.randn(1, least - 1), y, y + 1)


def test_targets_are_the_most_likely_wrong_classes() -> None:
    z, y = torch.from_numpy(Z), torch.from_numpy(Y)
    chosen = [nearest_classes(z, y, torch.full((3,), k)).tolist() for k in range(4)]
    assert list(map(list, zip(*chosen, strict=True))) == [[3, 0, 2, 4], [0, 4, 2, 1], [2, 3, 1, 4]]
