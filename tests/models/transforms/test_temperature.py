"""Temperature: a known factor is found again, no prediction changes, and never on what is reported."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from robusteval.classifier import Tempered
from robusteval.errors import UserError
from robusteval.models.transforms.apply import check_order
from robusteval.models.transforms.inputs import Smoothing
from robusteval.models.transforms.padding import Padding
from robusteval.models.transforms.temperature import Temperature, fit, nll


def calibrated(n: int, classes: int, spread: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits, and labels drawn from their softmax: temperature 1 is right."""
    random = torch.Generator().manual_seed(0)
    logits = spread * torch.randn(n, classes, generator=random, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.7, 40.0])
def test_a_known_factor_is_found_again(factor):
    logits, labels = calibrated(20_000, 10)
    found = fit(factor * logits, labels)
    assert found == pytest.approx(factor, rel=0.02)  # about three standard errors of 20 000 labels
    assert found / factor == pytest.approx(fit(logits, labels), rel=1e-4)


def test_the_minimum_is_that_of_a_gradient_method():
    logits, labels = calibrated(500, 4)
    logits = 2.5 * logits + 0.3 * torch.randn(500, 4, generator=torch.Generator().manual_seed(1))
    p = logits.numpy()

    def loss(log_t: np.ndarray) -> float:
        z = p / np.exp(log_t[0])
        z = z - z.max(1, keepdims=True)
        return float((np.log(np.exp(z).sum(1)) - z[np.arange(500), labels.numpy()]).mean())

    due = minimize(loss, np.zeros(1), method="BFGS")
    found = fit(logits, labels)
    assert found == pytest.approx(float(np.exp(due.x[0])), rel=1e-3)
    assert nll(logits, labels, found) == pytest.approx(due.fun, rel=1e-6)


def test_no_prediction_changes_and_held_out_images_decide(classifier, material):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 5))
    images = torch.rand(400, 1, 3, 3)
    with torch.no_grad():
        labels = torch.multinomial((network(images) / 0.25).softmax(1), 1)[:, 0]
    module, facts = Temperature(images=300).apply(classifier(network), material((1, 3, 3), (images, labels)))
    assert isinstance(module, Tempered)
    with torch.no_grad():
        assert facts["value"] == fit(network(images[:300]).double(), labels[:300])
        assert torch.equal(module(images).argmax(1), network(images).argmax(1))
        torch.testing.assert_close(module(images) * facts["value"], network(images))
    assert facts["value"] == pytest.approx(0.25, rel=0.4)
    assert facts["nll_after"] < facts["nll_before"]
    assert (facts["fitted_on"], facts["source"]) == (300, "the test")


def test_without_a_minimum_it_is_refused():
    logits = 5 * torch.eye(10, dtype=torch.float64)
    with pytest.raises(UserError, match="no temperature"):
        fit(logits, torch.arange(10))  # all right: the colder the better
    with pytest.raises(UserError, match="no temperature"):
        fit(logits, (torch.arange(10) + 1) % 10)  # all wrong: the hotter the better
    with pytest.raises(UserError, match="not finite"):
        fit(logits * torch.nan, torch.arange(10))


def test_randomised_models_and_wrong_orders_are_refused(classifier, material):
    images, labels = torch.rand(80, 1, 3, 3), torch.arange(80) % 9
    noisy, _ = Smoothing().apply(classifier(nn.Flatten()), material((1, 3, 3)))
    with pytest.raises(UserError, match="is randomised"):
        Temperature().apply(classifier(noisy), material((1, 3, 3), (images, labels)))
    with pytest.raises(UserError, match="temperature with smoothing"):
        check_order([Smoothing(), Temperature()])
    with pytest.raises(UserError, match=r"\[temperature,padding\].*put padding before it"):
        check_order([Temperature(), Padding()])
    check_order([Padding(), Smoothing()])
