"""Attacks of Foolbox, named by their class."""

import inspect
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from robusteval.attacks.base import Attack, WholeBatch
from robusteval.attacks.reference import library

_MODULE = "foolbox"
_GIVEN = {"distance": "threat.norm"}


@dataclass(frozen=True, kw_only=True)
class Foolbox(WholeBatch):
    """An attack of Foolbox (Rauber et al. 2020, https://doi.org/10.21105/joss.02607): ``name`` is its class in
    foolbox.attacks, ``options`` what its constructor takes.

    Attacks of a fixed radius get that of the threat; of a minimum-norm attack Foolbox projects the point found into the
    ball, and it counts if it still fools. ``batch_size`` images run at a time.
    """

    name: str = "LinfPGD"
    options: library.Options | None = None
    batch_size: Annotated[int, Ge(1)] = 250

    method: ClassVar[str] = "reference/foolbox"
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2", "l1"})

    def label(self) -> str:
        return f"{self.method}/{self.name}"

    def stages(self, norm: str) -> tuple[tuple[str, Attack], ...]:
        return ((self.name.lower(), self),)

    def library(self) -> str | None:
        return library.version(_MODULE)

    def refusal(self, norm: str) -> str | None:
        if (sentence := library.trouble(self.method, _MODULE, _MODULE)) is not None:
            return sentence
        kinds = _kinds()
        if self.name not in kinds:
            return library.unknown("attack.name", self.name, kinds)
        if (sentence := library.misfit(kinds[self.name], self.options, _GIVEN)) is not None:
            return sentence
        due = getattr(library.load("foolbox.distances"), norm)
        try:
            came = self._made(norm).distance
        except (TypeError, ValueError, AssertionError) as error:
            return f"attack.options={self.options}: {self.name} does not take them ({error})"
        if came is not due:
            return (
                f"attack.name={self.name} searches in another norm ({came}) than threat.norm={norm}; choose another "
                "norm or attack"
            )
        return None

    def run(self, network: nn.Module, x: Tensor, y: Tensor, *, norm: str, eps: float, seed: int) -> Tensor:
        with library.quiet():
            model = library.load(_MODULE).PyTorchModel(network, bounds=(0, 1), device=x.device)
            attack = self._made(norm)
            # Raw points, points in the ball, and whether Foolbox thinks that they fool.
            found = [attack(model, *batch, epsilons=eps)[1] for batch in library.batches(x, y, self.batch_size)]
        return torch.cat(found)

    def _made(self, norm: str) -> Any:
        kind = _kinds()[self.name]
        chosen = {"distance": getattr(library.load("foolbox.distances"), norm)}
        takes = library.parameters(kind)
        return kind(**{name: value for name, value in chosen.items() if name in takes}, **library.numbers(self.options))


def _kinds() -> dict[str, Any]:
    """Return Foolbox's attacks of a fixed radius and of minimum norm, by name."""
    attacks, base = library.load("foolbox.attacks"), library.load("foolbox.attacks.base").AttackWithDistance
    return {
        name: kind
        for name, kind in inspect.getmembers(attacks, inspect.isclass)
        if issubclass(kind, base) and kind is not base and not inspect.isabstract(kind)
    }
