"""Temperature scaling: one number by which all logits are divided, fitted on images that are not reported."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional as F

from robusteval.classifier import Classifier, Tempered
from robusteval.models.transforms.base import Facts, Material, Transform, refuse

_SPAN = 5.0  # natural logarithm of the largest temperature that is tried, and of the inverse of the smallest
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Temperature(Transform):
    """Logits are divided by the T that minimises the negative log-likelihood of held-out images (Guo et al. 2017,
    https://arxiv.org/abs/1706.04599), clean and attacked by the same T. No prediction changes.

    Fitted on at most ``images`` images that are not reported: those that ``dataset.n`` did not draw, or of the file
    ``path`` (.npz or .safetensors with images and labels).
    """

    images: Annotated[int, Ge(10)] = 1000
    path: str | None = None

    method: ClassVar[str] = "temperature"
    last: ClassVar[bool] = True

    def label(self) -> str:
        return "temperature"

    def apply(self, classifier: Classifier, material: Material) -> tuple[nn.Module, Facts]:
        held_out = material.held_out(self.images, self.path)
        logits = _logits(classifier.module, held_out.images)
        if not torch.equal(logits[:_BATCH], _logits(classifier.module, held_out.images[:_BATCH])):
            raise refuse(
                "temperature",
                f"{classifier.name} is randomised: one pass would be rescaled, but the mean of several is judged; "
                "switch the randomness off, or leave the transform out",
            )
        found = fit(logits, held_out.labels)
        return Tempered(classifier.module, found), {
            "value": found,
            "fitted_on": len(held_out.images),
            "source": held_out.source,
            "digest": held_out.digest,
            "nll_before": round(nll(logits, held_out.labels, 1.0), 6),
            "nll_after": round(nll(logits, held_out.labels, found), 6),
        }


def nll(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """Return the mean negative log-likelihood (nats) of labels [n] under logits [n, classes] / temperature."""
    return float(F.cross_entropy(logits.double() / temperature, labels))


def fit(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature that minimises the negative log-likelihood of finite logits [n, classes].

    In 1 / T the likelihood is log-concave, so Brent's search over log T within e^-5 and e^5 finds the minimum. Raises
    UserError where there is none inside: all images right (colder is always better) or logits that say nothing.
    """
    if not bool(logits.isfinite().all()):
        raise refuse("temperature", "logits of held-out images are not finite; mend the network")
    found = minimize_scalar(
        lambda log_t: nll(logits, labels, math.exp(log_t)), bounds=(-_SPAN, _SPAN), method="bounded",
        options={"xatol": 1e-6},
    )  # fmt: skip
    log_t = float(found.x)  # pyright: ignore[reportAttributeAccessIssue]
    ends = min(nll(logits, labels, math.exp(end)) for end in (-_SPAN, _SPAN))
    if abs(log_t) > _SPAN - 1e-3 or ends <= nll(logits, labels, math.exp(log_t)):
        raise refuse(
            "temperature",
            f"no temperature from {math.exp(-_SPAN):.2g} to {math.exp(_SPAN):.0f} fits {len(labels)} held-out images "
            "best, as when all of them are right or the logits say nothing; use more images, or leave it out",
        )
    return float(f"{math.exp(log_t):.6g}")  # more digits would only differ from processor to processor


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([network(part) for part in images.split(_BATCH)]).double()
