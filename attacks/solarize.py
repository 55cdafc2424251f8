"""Adversarial solarization: inverting every pixel above a threshold."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from robusteval.attacks.base import Attack, Job, Query, State, Steps, rows


def solarize(x: Tensor, threshold: Tensor, direction: str = "above") -> Tensor:
    """Return x [n, ...] in [0, 1] with the values at or above each row's threshold [n] inverted.

    ``above``: x where x < a, else 1 - x (Gavrikov & Keuper 2023, https://arxiv.org/abs/2308.12661). At a = 1 pure white
    still turns black; a > 1 is the identity. ``below`` (ours) inverts the values under the threshold instead.
    """
    invert = x >= rows(threshold, x)
    return torch.where(invert if direction == "above" else ~invert, 1 - x, x)


@dataclass(frozen=True, kw_only=True)
class Solarize(Attack):
    """Solarization as an attack with one number, without gradients (Gavrikov & Keuper 2023,
    https://arxiv.org/abs/2308.12661).

    ``random``      RandSol: up to ``iterations`` thresholds uniform on [0, 1) for each image, until one fools.
    ``universal``   one threshold for all images: the worst of 0, 0.01, ..., 1.00.
    ``fixed``       the given ``threshold`` for all images.
    ``exhaustive``  257 thresholds between the grey values, (k - 1/2)/255 for k = 0..256: the worst case of each 8-bit
    image. The published top-5 variant is ``threat.goal=top5``.
    """

    mode: Literal["random", "universal", "fixed", "exhaustive"] = "random"
    iterations: Annotated[int, Ge(1)] = 10
    threshold: Annotated[float, Interval(ge=0, le=2)] | None = None
    direction: Literal["above", "below"] = "above"

    method: ClassVar[str] = "solarize"
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2", "l1", "unbounded"})
    own_set: ClassVar[bool] = True
    parametric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if (self.mode == "fixed") != (self.threshold is not None):
            raise ValueError(
                f"mode={self.mode} with threshold={self.threshold}: mode=fixed needs a threshold in [0, 2], and no "
                "other mode takes one"
            )

    def columns(self) -> Tensor | None:
        if self.mode == "universal":
            return torch.arange(101, dtype=torch.float64) / 100
        if self.mode == "exhaustive":
            return (torch.arange(257, dtype=torch.float64) - 0.5) / 255
        return None

    def universal(self) -> bool:
        return self.mode == "universal"

    def exhaustive(self) -> bool:
        return self.mode == "exhaustive"

    def apply(self, x: Tensor, parameter: Tensor) -> Tensor:
        return solarize(x, parameter, self.direction)

    def start(self, job: Job) -> State:
        columns = self.columns()
        if columns is not None:
            table = columns.to(job.x).expand(len(job.x), -1)
        elif self.threshold is not None:
            table = torch.full_like(job.eps, self.threshold)[:, None]
        else:
            table = job.draw((self.iterations,))
        return State(x=job.x.clone(), table=table.clone(), asked=torch.zeros_like(job.y))

    def iterate(self, state: State) -> Steps:
        threshold = state.table.gather(1, state.asked[:, None])[:, 0]
        yield Query(points=self.apply(state.x, threshold), parameter=threshold, column=state.asked)
        state.asked = state.asked + 1
        return state.asked >= state.table.shape[1]
