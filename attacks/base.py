"""The contract of an attack: it asks for logits and gradients at some points, and is told them.

An attack never sees the model and never reports its own success. The engine owns the model, the passes, the slots, the
verification and the early stop; an attack is an update rule over tensors whose first dimension is the slot.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
from torch import Tensor, nn

from robusteval.attacks.asking import may_ask

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Query:
    """Points [slots, C, H, W] whose logits are wanted; with ``loss`` (logits -> [slots]) its input gradient too.

    A one-parameter attack names the ``parameter`` [slots] behind each point, so that it can be kept instead of the
    image, and a survey the ``column`` [slots] of its table that the answer belongs to. ``repeat`` passes are averaged
    where the network is randomised. A loss may also give several values a row, [slots, values]: then there are as many
    gradients.
    """

    points: Tensor
    loss: Loss | None = None
    repeat: int = 1
    parameter: Tensor | None = None
    column: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Logits [slots, classes], and where a loss was given its values [slots] and gradient [slots, C, H, W].

    Of a loss with several values a row: [slots, values] and [slots, values, C, H, W]. Of several passes: the mean of
    losses and gradients, and logits that are the logarithm of the mean softmax.

    Entries of a gradient that are not finite arrive as zeros; the engine reports the sample. So do those outside the
    region that the threat model confines the attack to.
    """

    logits: Tensor
    loss: Tensor | None = None
    gradient: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """The values of the loss, for an attack that asked for one."""
        if self.loss is None:
            raise LookupError("the query named no loss")
        return self.loss

    @property
    def slope(self) -> Tensor:
        """The gradient, for an attack that asked for one."""
        if self.gradient is None:
            raise LookupError("the query named no loss, so there is no gradient")
        return self.gradient


class Draw(Protocol):
    """Random numbers [slots, *shape] that depend on seed, sample, attack, restart, target and step alone."""

    def __call__(
        self, shape: tuple[int, ...], step: int = 0, kind: Literal["uniform", "normal"] = "uniform"
    ) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """What an attack starts from: one (sample, restart, target) per slot, every tensor [slots, ...].

    ``logits`` are those of the clean image, ``sample`` its id. ``lo`` and ``hi`` are the box, the region and
    (Linf) the ball together: Linf projection is ``clamp(lo, hi)``. ``eps`` [slots] is the radius in ``norm``, infinite
    where unbounded. An attack that keeps the nearest adversarial gets neither ball nor radius. ``region``
    [slots, 1, H, W] (bool) says which pixels may change, None that all may; gradients are zero elsewhere, so that only
    an attack that takes its points from something else than gradients, lo and hi need look at it.
    """

    x: Tensor
    y: Tensor
    logits: Tensor
    sample: Tensor
    lo: Tensor
    hi: Tensor
    eps: Tensor
    norm: str
    restart: Tensor
    target: Tensor
    draw: Draw
    region: Tensor | None = None


class State(SimpleNamespace):
    """Per-slot tensors of an attack, slot first, whose rows the engine moves in and out; all else serves every slot."""

    def fill(self, slots: Tensor, other: Self) -> None:
        """Overwrite the rows ``slots`` by the rows of ``other``."""
        seen: set[int] = set()
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                if value.data_ptr() in seen:  # an update rule may leave the same tensor under two names
                    value = value.clone()
                    setattr(self, name, value)
                seen.add(value.data_ptr())
                value.index_copy_(0, slots, getattr(other, name))

    def keep(self, slots: Tensor) -> None:
        """Keep only the rows ``slots`` (indices)."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.index_select(0, slots))


Steps = Generator[Query, Answer, Tensor]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Base of all attacks: a frozen dataclass of options, with what it can do declared as class variables.

    A state must own its tensors: ``start`` clones what it takes from the job, since rows are overwritten in place.

    ``norms``     norms whose ball it searches; ``unbounded`` means the box alone.
    ``optimum``   whether it reaches the optimum of a linear model (the contract test holds it to that).
    ``keeps``     ``first`` success, which ends the search of a sample, or the ``nearest`` adversarial of the whole
                  search, inside the ball or not: a minimum-norm attack. Its jobs know no ball: ``lo`` and ``hi`` are
                  the box (and region), ``eps`` is infinite.
    ``invariant`` whether its result is independent of batch, order and neighbours.
    ``gradients`` whether it asks for gradients of the loss.
    ``own_set``   whether it defines its own set of images, so that no norm bounds it by default.
    ``parametric`` whether one number makes the adversarial (see ``apply``), which is then kept instead of the image.
    ``of_8_bit``   whether an exhaustive survey is one of 8-bit pictures only.
    ``revision``  raised whenever results change; part of a run's key.
    """

    method: ClassVar[str]
    revision: ClassVar[int] = 1
    norms: ClassVar[frozenset[str]]
    optimum: ClassVar[bool] = False
    keeps: ClassVar[Literal["first", "nearest"]] = "first"
    invariant: ClassVar[bool] = True
    own_set: ClassVar[bool] = False
    gradients: ClassVar[bool] = False
    parametric: ClassVar[bool] = False
    of_8_bit: ClassVar[bool] = False

    def min_classes(self) -> int:
        """Return how many classes the classifier must have."""
        return 2

    def is_search(self) -> bool:
        """Return whether it asks for answers that only lead it on, so that their precision is a matter of speed."""
        return self.columns() is None

    def averages(self) -> bool:
        """Return whether its gradients are means of several passes, as a randomised network needs."""
        return False

    def published(self) -> bool:
        """Return whether its budget is the one that its published numbers are made with; of most there is none."""
        return True

    def unfit(self, shape: tuple[int, int, int]) -> str | None:
        """Return in a sentence why it cannot attack images of this shape (C, H, W); None where it can."""
        return None

    def max_classes(self) -> int | None:
        """Return how many classes the classifier may have; None for any number."""
        return None

    def stages(self, norm: str) -> "tuple[tuple[str, Attack], ...]":
        """Return (name, attack) in order for a ball in ``norm``; each is run on the samples that still stand."""
        return ((self.method, self),)

    def label(self) -> str:
        """Return what results call it: its method, and what else tells it apart."""
        return self.method

    def library(self) -> str | None:
        """Return the name and version of the library whose attack it is; None for an attack of our own."""
        return None

    def refusal(self, norm: str) -> str | None:
        """Return in a sentence why it cannot run here in ``norm``: a library or an option that is not there."""
        return None

    def foreign(self, digests: Mapping[str, str]) -> str | None:
        """Return in a sentence why it does not fit the images of a run with such digests, or None."""
        return None

    def files(self) -> str | None:
        """Return the digest of the files that it reads besides the model and the data; None where it reads none."""
        return None

    def origins(self) -> list[dict[str, Any]]:
        """Return where each stage of an attack that repeats other runs has its points from; of others nothing."""
        return []

    def notes(self) -> tuple[str, ...]:
        """Return sentences about the environment that the user should read before it runs."""
        return ()

    def restarts(self) -> int:
        """Return how many independent starts each target gets."""
        return 1

    def targets(self, classes: int) -> int:
        """Return how many targets each sample gets; 1 for an untargeted attack."""
        return 1

    def columns(self) -> Tensor | None:
        """Return the parameters [columns] that a survey evaluates on every sample; None for a search."""
        return None

    def universal(self) -> bool:
        """Return whether one parameter serves all samples: the column of the survey that is worst over the dataset."""
        return False

    def exhaustive(self) -> bool:
        """Return whether the survey covers every image that the attack can make (of an 8-bit picture: ``of_8_bit``)."""
        return False

    def chances(self) -> Tensor | None:
        """Return how likely a random search draws each column [columns] of an exhaustive survey; None of others."""
        return None

    def identity(self) -> int | None:
        """Return which column of its survey is the image itself; None where none is."""
        return None

    def margin(self) -> int:
        """Return how many pixels around the classifier's crop it needs to see."""
        return 0

    def apply(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return the images [n, ...] that a one-parameter attack makes of ``x`` with ``parameter`` [n]."""
        raise TypeError(f"{self.method} is not a one-parameter attack")

    def start(self, job: Job) -> State:
        """Return the state of fresh slots."""
        raise NotImplementedError

    def iterate(self, state: State) -> Steps:
        """Run ONE iteration: yield queries, return which slots [slots] (bool) have nothing left to do.

        To be assigned to the state, not changed in place: slots that have ended may be iterated again, from the state
        before their last iteration, and what comes of it is ignored.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class WholeBatch(Attack):
    """An attack of another library: it gets the network and all samples of a chunk at once, and returns one image each.

    The engine counts its passes, brings its points into the threat and verifies every one; its result may depend on
    batch, order and neighbours, and on the global generators, which the engine seeds for each call.
    """

    invariant: ClassVar[bool] = False

    def is_search(self) -> bool:
        return False

    def bounded(self) -> bool:
        """Return whether it is told the radius; one that is not looks for the nearest point, however far."""
        return True

    def run(self, network: nn.Module, x: Tensor, y: Tensor, *, norm: str, eps: float, seed: int) -> Tensor:
        """Return attacked images of the shape of ``x`` [n, C, H, W] with labels ``y`` [n].

        ``network`` maps images in [0, 1] to float32 logits and is in eval mode. ``seed`` is from 0 to 2^31 - 1.
        """
        raise NotImplementedError


def chosen(mask: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """Return the rows of ``here`` where ``mask`` [slots] holds, else those of ``there``; may be one of the two itself.

    Both hold finite numbers of float32, no two of them 3e38 apart.
    """
    if may_ask() and (count := int(mask.sum())) in (0, len(mask)):
        return here if count else there
    # Exact, since the weights are 0 and 1. Three times as fast as torch's where, whose mask is read number by number.
    return there.lerp(here, rows(mask, here).to(here.dtype))


def rows(values: Tensor, like: Tensor) -> Tensor:
    """View per-slot values [slots] so that they broadcast over ``like`` [slots, ...]."""
    return values.view(-1, *[1] * (like.ndim - 1))


def nearest_classes(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return the (target+1)-th most likely class other than the label, [slots]; AutoAttack's choice of targets."""
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.argsort(dim=1, descending=True, stable=True).gather(1, target[:, None])[:, 0]
