"""Passes of the network: padded to a physical batch in which a row's bits do not depend on its neighbours.

On the CPU the last bits of a convolution move with the physical batch size, but not among multiples of 16, and with
many networks of small images not among multiples of 4 either. So every pass is padded to a multiple of 16, or up to 64
images of 4 where this process has tried it (spare rows repeat the first one and are not counted).
"""

import contextlib
import hashlib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from robusteval.attacks.base import Answer, Loss, Query
from robusteval.engine.memory import OutOfMemory, ran_out
from robusteval.errors import RobustevalError, UserError

QUANTUM = 16
FINE = 4
FINE_UP_TO = 64  # above, few spare rows are a small share
_LEAST = 1e-300  # a probability whose logarithm is still finite

# What a user's forward or backward may raise when it is wrong; SystemExit, since a network may not end the evaluation.
RAISED_BY_NETWORKS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    NameError,
    OSError,
    SystemExit,
)


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode without parameter gradients, and leave its flags as they were.

    Also asks for full float32 arithmetic: TF32 would move logits by more than the margins that decide.
    """
    training = [(part, part.training) for part in module.modules()]
    wanting = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    benchmark, deterministic = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    try:
        module.eval()
        for parameter, _ in wanting:
            parameter.requires_grad_(False)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False  # a kernel chosen by a clock could differ between two runs
        torch.backends.cudnn.deterministic = True  # or gradients are sums in whatever order threads arrive
        yield
    finally:
        for part, flag in training:
            part.training = flag
        for parameter, flag in wanting:
            parameter.requires_grad_(flag)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, deterministic


def padded(points: Tensor, quantum: int = QUANTUM) -> Tensor:
    """Return a copy of points [n, C, H, W] with repetitions of the first row up to the next size of a batch.

    Always a copy: a network that normalises in place must not change the images of whoever asks.
    """
    spare = spare_rows(len(points), quantum)
    return torch.cat([points, points[:1].expand(spare, *points.shape[1:])]) if spare else points.clone()


def spare_rows(n: int, quantum: int) -> int:
    """Return how many rows are to be added to ``n``: to a multiple of ``quantum``, where ``n`` exceeds 64 of 16."""
    return -n % (quantum if n <= FINE_UP_TO else QUANTUM)


@dataclass(kw_only=True)
class Chance:
    """What a randomised network draws, made a function of (seed, unit of work, number of the pass).

    So a unit that is computed again after a kill meets the same chance, as long as its passes are the same.
    """

    seed: int
    unit: str = ""
    passes: int = 0

    def begin(self, unit: str) -> None:
        """Start counting the passes of a unit of work."""
        self.unit, self.passes = unit, 0

    def next(self) -> None:
        """Seed torch for the next pass."""
        number = hashlib.sha256(f"{self.seed} {self.unit} {self.passes}".encode()).digest()
        torch.manual_seed(int.from_bytes(number[:8], "big"))
        self.passes += 1


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Forward and backward passes of one module, at most ``batch`` points at a time (a multiple of 16).

    Up to 64 are padded to a multiple of ``quantum``, more to one of 16. Of a randomised network ``logits`` are the
    logarithm of the mean softmax of ``draws`` passes, whose random numbers ``chance`` decides.
    """

    module: nn.Module
    batch: int
    quantum: int = QUANTUM
    draws: int = 1
    chance: Chance | None = None

    def logits(self, points: Tensor) -> Tensor:
        """Return float32 logits [n, classes] of points [n, C, H, W]."""
        with torch.no_grad():
            parts = [
                _mean_logits(
                    [self._forward(padded(part, self.quantum))[: len(part)].float() for _ in range(self.draws)]
                )
                for part in points.split(self.batch)
            ]
        return torch.cat(parts)

    def ask(self, query: Query) -> Answer:
        """Answer an attack's query. A gradient entry that is not finite comes back as it is.

        Raises UserError where the network fails, or where a gradient is wanted and the logits do not depend
        differentiably on the image.
        """
        if query.loss is None:
            return Answer(logits=self.logits(query.points))
        several = [self._ask_once(query.points, query.loss) for _ in range(query.repeat)]
        if len(several) == 1:
            return several[0]
        return Answer(
            logits=_mean_logits([answer.logits for answer in several]),
            loss=_mean([answer.value for answer in several]),
            gradient=_mean([answer.slope for answer in several]),
        )

    def cost(self, query: Query, answer: Answer) -> tuple[int, int]:
        """Return how many (forward, backward) passes the answer cost for each point."""
        if answer.gradient is None:
            return self.draws, 0
        gradients = answer.value.shape[1] if answer.value.ndim == 2 else 1
        return query.repeat, query.repeat * gradients

    def _ask_once(self, points: Tensor, loss_of: Loss) -> Answer:
        # The leaf shares the asker's memory where nothing is to be padded: the network only gets copies of it.
        n = len(points)
        points = padded(points, self.quantum) if spare_rows(n, self.quantum) else points
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            # A copy, not the leaf itself: a network may work on its input in place.
            logits = self._forward(points.clone())[:n].float()
            loss = loss_of(logits)
            if not loss.requires_grad:
                raise UserError(NO_GRADIENT)
            sums = loss.sum(0).unbind() if loss.ndim == 2 else (loss.sum(),)
            try:
                gradients = [
                    torch.autograd.grad(value, points, allow_unused=True, retain_graph=number + 1 < len(sums))[0]
                    for number, value in enumerate(sums)
                ]
            except RAISED_BY_NETWORKS as error:
                raise complaint("backward", error) from error
        if any(gradient is None for gradient in gradients):
            raise UserError(NO_GRADIENT)
        # In the order of the images, whatever the network's: mixed orders slow down all arithmetic that follows.
        rows = [gradient[:n].contiguous() for gradient in gradients]
        gradient = torch.stack(rows, 1) if loss.ndim == 2 else rows[0]
        return Answer(logits=logits.detach(), loss=loss.detach(), gradient=gradient)

    def _forward(self, points: Tensor) -> Tensor:
        if self.chance is not None:
            self.chance.next()
        try:
            return self.module(points)
        except RAISED_BY_NETWORKS as error:
            raise complaint("forward", error) from error


def _mean(several: list[Tensor]) -> Tensor:
    """Return the mean, added up one after the other: in a reduction the bits depend on where a number stands."""
    total = several[0].clone()
    for values in several[1:]:
        total += values
    return total / len(several)


def _mean_logits(several: list[Tensor]) -> Tensor:
    """Return the logarithm of the mean softmax of logits [n, classes]; of one alone the logits as they are.

    NaN where one of them is not finite, which a mean softmax would hide.
    """
    if len(several) == 1:
        return several[0]
    mean = _mean([logits.double().softmax(1) for logits in several]).clamp(min=_LEAST).log().float()
    unusable = torch.stack([~logits.isfinite().all(1) for logits in several]).any(0)
    return mean.masked_fill(unusable[:, None], torch.nan)


def physical(slots: int) -> int:
    """Return the physical batch for so many slots: the next multiple of 16."""
    return -(-slots // QUANTUM) * QUANTUM


def complaint(direction: str, error: BaseException) -> RobustevalError:
    """Return the error to raise instead of what the network raised: memory ran out, or the network is wrong."""
    if ran_out(error):
        return OutOfMemory(f"the device has not enough memory for a {direction} pass; set engine.slots to fewer")
    return UserError(failed(direction, error))


def failed(direction: str, error: BaseException) -> str:
    """Return one sentence: what the network raised, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    return (
        f"the model's {direction} pass raised {type(error).__name__}: {reason} ({Path(frame.filename).name}, line "
        f"{frame.lineno}); mend the network, then run the same command to go on (ROBUSTEVAL_DEBUG=1 shows all of it)"
    )


NO_GRADIENT = (
    "the model's logits do not depend differentiably on the image (a detached tensor, numpy or no_grad inside "
    "forward), "
    "so an attack by gradients would report a robustness that is not there; use attack=solarize or attack=noise, or "
    "mend forward"
)
