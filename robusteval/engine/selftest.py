"""Before anything is counted: does the model take the images, and are its bits independent of the batch?"""

import torch
from torch import Tensor

from robusteval.attacks import losses
from robusteval.attacks.base import Query
from robusteval.classifier import Classifier
from robusteval.engine.memory import OutOfMemory, ran_out, too_little
from robusteval.engine.passes import QUANTUM, RAISED_BY_NETWORKS, Passes, padded
from robusteval.errors import UserError


def check_answer(classifier: Classifier, passes: Passes, images: Tensor) -> None:
    """Try the model on a few images [n, C, H, W].

    Raises UserError where it fails on them, or answers anything but floating-point logits [n, classes].
    """
    try:
        with torch.no_grad():
            answer = passes.module(padded(images[:2]))  # as every pass: no network ever sees a single image
    except RAISED_BY_NETWORKS as error:
        if ran_out(error):
            raise OutOfMemory(too_little(QUANTUM)) from error
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"model={classifier.name} fails on images of shape {list(images.shape[1:])} (channels, height, width): "
            f"{line}; {_advice(classifier)}"
        ) from error
    wanted = [QUANTUM, classifier.classes]
    if not isinstance(answer, Tensor) or list(answer.shape) != wanted or not answer.is_floating_point():
        came = list(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise UserError(
            f"model={classifier.name} answers {came} where logits of shape {wanted} are due; wrap it so that it "
            "returns one tensor of logits"
        )


def _advice(classifier: Classifier) -> str:
    kinds = {str(p.dtype) for p in classifier.module.parameters() if p.is_floating_point()} - {"torch.float32"}
    if kinds:
        return f"its weights are {', '.join(sorted(kinds))} and images come as torch.float32: return model.float()"
    return "check that dataset and model belong together"


def bitwise(passes: Passes, images: Tensor, labels: Tensor, *, gradients: bool) -> bool:
    """Return whether a row's logits (and gradients) are the same bits in a batch of 16 as in that of the slots.

    ``images`` are the first of the dataset: where it has no more than 16, no larger batch will ever be asked, and what
    can differ is a row's place and its neighbours.
    """
    if len(images) <= QUANTUM:
        return _same(passes, images, labels, QUANTUM, gradients=gradients)
    try:
        return _same(passes, images, labels, max(passes.batch, 2 * QUANTUM), gradients=gradients)
    except OutOfMemory:
        if passes.batch > QUANTUM:
            raise
        return _same(passes, images, labels, QUANTUM, gradients=gradients)  # nor on a device that holds no more


def _same(passes: Passes, images: Tensor, labels: Tensor, size: int, *, gradients: bool) -> bool:
    """Compare the first 16 images with themselves at the end of a batch of ``size``, in the opposite order."""
    few = images[:QUANTUM]
    many = images.repeat(-(-size // len(images)), 1, 1, 1)[:size].flip(0)
    y = labels.repeat(-(-size // len(images)))[:size].flip(0)
    small, large = Passes(module=passes.module, batch=QUANTUM), Passes(module=passes.module, batch=size)

    def ask(via: Passes, points: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        loss = (lambda logits: losses.cross_entropy(logits, y)) if gradients else None
        answer = via.ask(Query(points=points, loss=loss))
        return answer.logits, answer.gradient

    (a, g), (b, h) = ask(small, few, labels[: len(few)]), ask(large, many, y)
    b, h = b.flip(0), None if h is None else h.flip(0)
    return _equal(a, b[: len(few)]) and (g is None or h is None or _equal(g, h[: len(few)]))


def _equal(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors hold the same numbers, NaN where the other has NaN."""
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
