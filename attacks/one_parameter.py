"""Attacks with one number: a transform of the whole image, and four ways to choose its number."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from robusteval.attacks.base import Attack, Job, Query, State, Steps
from robusteval.attacks.domains import Finite, Interval

Mode = Literal["random", "universal", "fixed", "exhaustive"]


@dataclass(frozen=True, kw_only=True)
class OneParameter(Attack):
    """Base of the family: an attack says what its number may be (``domain``) and what it does (``apply``).

    ``random``      up to ``iterations`` numbers drawn for each image, until one fools.
    ``universal``   one number for all images: the worst of the domain's grid.
    ``fixed``       the given number for all images, by the option that ``named`` names.
    ``exhaustive``  every number of the grid on every image: the worst case of each, where the domain is finite.

    Without gradients; one forward pass a number.
    """

    mode: Mode = "random"
    iterations: Annotated[int, Ge(1)] = 10

    named: ClassVar[str]
    due: ClassVar[str]  # what mode=fixed needs, in words
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2", "l1", "unbounded"})
    own_set: ClassVar[bool] = True
    parametric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        given = getattr(self, self.named)
        if (self.mode == "fixed") != (given is not None):
            raise ValueError(
                f"mode={self.mode} with {self.named}={given}: mode=fixed needs {self.due}, and no other mode takes one"
            )

    def domain(self) -> Finite | Interval:
        """Return what the number may be."""
        raise NotImplementedError

    def number(self) -> float | None:
        """Return the number of mode=fixed; None in other modes."""
        return getattr(self, self.named)

    def grid(self) -> Tensor:
        """Return the numbers [columns] that the universal and the exhaustive mode try."""
        return self.domain().grid()

    def drawn(self, uniform: Tensor) -> Tensor:
        """Return what mode=random tries, from uniform numbers in [0, 1)."""
        return self.domain().drawn(uniform)

    def columns(self) -> Tensor | None:
        return self.grid() if self.mode in ("universal", "exhaustive") else None

    def universal(self) -> bool:
        return self.mode == "universal"

    def exhaustive(self) -> bool:
        return self.mode == "exhaustive" and isinstance(self.domain(), Finite)

    def chances(self) -> Tensor | None:
        if not self.exhaustive():
            return None
        return torch.full_like(columns := self.grid(), 1 / len(columns))

    def start(self, job: Job) -> State:
        columns, number = self.columns(), self.number()
        if columns is not None:
            table = columns.to(job.x).expand(len(job.x), -1)
        elif number is not None:
            table = torch.full_like(job.eps, number)[:, None]
        else:
            table = self.drawn(job.draw((self.iterations,)))
        return State(x=job.x.clone(), table=table.clone(), asked=torch.zeros_like(job.y))

    def iterate(self, state: State) -> Steps:
        parameter = state.table.gather(1, state.asked[:, None])[:, 0]
        yield Query(points=self.apply(state.x, parameter), parameter=parameter, column=state.asked)
        state.asked = state.asked + 1
        return state.asked >= state.table.shape[1]
