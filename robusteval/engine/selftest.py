"""Before anything is counted: does the model take the images, and are its bits independent of the batch?"""

import torch
from torch import Tensor

from robusteval.attacks.base import Query
from robusteval.classifier import Classifier
from robusteval.engine.memory import OutOfMemory, ran_out, too_little
from robusteval.engine.passes import FINE, QUANTUM, RAISED_BY_NETWORKS, Passes, padded, physical
from robusteval.errors import UserError

# Multiples of 4 that are none of 16: each remainder small and large, since kernels are chosen by both.
_FINE_SIZES = (4, 8, 12, 20, 24, 28, 36, 56, 60)
_SMALL_IMAGE, _SMALL_NETWORK = 64, 2_000_000  # pixels along a side, and weights


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


def bitwise(passes: Passes, images: Tensor, *, gradients: bool) -> bool:
    """Return whether a row's logits (and gradients) are the same bits in a batch of 16 as in that of the slots.

    ``images`` are the first of the dataset: where it has no more than 16, no larger batch will ever be asked, and what
    can differ is a row's place and its neighbours.
    """
    if len(images) <= QUANTUM:
        return _same(passes, images, QUANTUM, gradients=gradients)
    try:
        return _same(passes, images, max(passes.batch, 2 * QUANTUM), gradients=gradients)
    except OutOfMemory:
        if passes.batch > QUANTUM:
            raise
        return _same(passes, images, QUANTUM, gradients=gradients)  # nor on a device that holds no more


def _same(passes: Passes, images: Tensor, size: int, *, gradients: bool) -> bool:
    """Compare the first 16 images with themselves at the end of a batch of ``size``, in the opposite order."""
    few = images[:QUANTUM]
    many = images.repeat(-(-size // len(images)), 1, 1, 1)[:size].flip(0)
    small, large = Passes(module=passes.module, batch=QUANTUM), Passes(module=passes.module, batch=size)
    due, came = (_ask(via, points, gradients=gradients) for via, points in ((small, few), (large, many)))
    return all(equal(one, other.flip(0)[: len(few)]) for one, other in zip(due, came, strict=True))


def quantum(passes: Passes, images: Tensor) -> int:
    """Return to whose multiples batches of up to 64 images are padded: 4 where no bit depends on it, else 16.

    For the process that asks, with its threads and its processor: elsewhere the answer may be another, but the bits are
    those of batches of 16 in any case. ``passes`` have passed the test of ``bitwise``; of larger networks or images the
    trial would cost more than it saves, and they get 16.
    """
    weights = sum(parameter.numel() for parameter in passes.module.parameters())
    if max(images.shape[-2:]) > _SMALL_IMAGE or weights > _SMALL_NETWORK:
        return QUANTUM
    points = images.repeat(-(-QUANTUM // len(images)), 1, 1, 1)[:QUANTUM]
    try:
        due = _ask(Passes(module=passes.module, batch=QUANTUM), points, gradients=True)
        for size in (size for size in _FINE_SIZES if size <= passes.batch):
            which = torch.arange(5, 5 + size) % QUANTUM  # so that no row stands where it did
            fine = Passes(module=passes.module, batch=physical(size), quantum=FINE)
            came = _ask(fine, points[which], gradients=True)
            if not all(equal(one[which], other) for one, other in zip(due, came, strict=True)):
                return QUANTUM
    except (UserError, OutOfMemory):  # without a gradient, made for some sizes only, or no room for this one
        return QUANTUM
    return FINE


def _ask(passes: Passes, points: Tensor, *, gradients: bool) -> list[Tensor]:
    """Return the logits, with ``gradients`` also those of a sum of the logits with fixed weights.

    Not of the cross-entropy: a confident network's is zero, whose bits show nothing.
    """
    answer = passes.ask(Query(points=points, loss=weighted if gradients else None))
    return [answer.logits, answer.slope] if gradients else [answer.logits]


def weighted(logits: Tensor) -> Tensor:
    """Return a sum of each row's logits with fixed weights, whose gradient is never that of a saturated loss."""
    return (logits * torch.arange(1.0, logits.shape[1] + 1, device=logits.device).cos()).sum(1)


def equal(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors hold the same numbers, NaN where the other has NaN."""
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
