"""Attacks of torchattacks, named by their class."""

import inspect
import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from robusteval.attacks.base import Attack, WholeBatch
from robusteval.attacks.reference import library

_MODULE = "torchattacks"
_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
# What the constructor calls the radius; an attack that has neither looks for the nearest point.
_RADII = ("eps", "max_epsilon")
_GIVEN = {
    "model": "the evaluation",
    "norm": "threat.norm",
    "seed": "the evaluation's seed",
    **dict.fromkeys(_RADII, "threat.eps"),
}


@dataclass(frozen=True, kw_only=True)
class Torchattacks(WholeBatch):
    """An attack of torchattacks (Kim 2020, https://arxiv.org/abs/2010.01950): ``name`` is its class, ``options`` what
    its constructor takes.

    Network, radius, norm and seed come from the evaluation. Options that are left out have torchattacks' defaults,
    whose budgets are small: 10 steps of PGD, of APGD and of its AutoAttack. ``batch_size`` images run at a time.
    """

    name: str = "PGD"
    options: library.Options | None = None
    batch_size: Annotated[int, Ge(1)] = 250

    method: ClassVar[str] = "reference/torchattacks"
    norms: ClassVar[frozenset[str]] = frozenset(_NORMS)

    def label(self) -> str:
        return f"{self.method}/{self.name}"

    def stages(self, norm: str) -> tuple[tuple[str, Attack], ...]:
        return ((self.name.lower(), self),)

    def library(self) -> str | None:
        return library.version(_MODULE)

    def notes(self) -> tuple[str, ...]:
        return tuple(filter(None, [library.clash()]))

    def bounded(self) -> bool:
        return any(radius in library.parameters(_kinds()[self.name]) for radius in _RADII)

    def refusal(self, norm: str) -> str | None:
        if (sentence := library.trouble(self.method, _MODULE, _MODULE)) is not None:
            return sentence
        if self.name not in _kinds():
            return library.unknown("attack.name", self.name, _kinds())
        kind = _kinds()[self.name]
        measures = _measures(kind)
        if measures and norm not in measures:
            return (
                f"attack.name={self.name} searches in {', '.join(sorted(measures))}, not in threat.norm={norm}; choose "
                "another norm or attack"
            )
        return library.misfit(kind, self.options, _GIVEN)

    def run(self, network: nn.Module, x: Tensor, y: Tensor, *, norm: str, eps: float, seed: int) -> Tensor:
        kind = _kinds()[self.name]
        given = {"model": network, "norm": _NORMS[norm], "seed": seed, **dict.fromkeys(_RADII, eps)}
        takes = library.parameters(kind)
        with library.quiet():
            attack = kind(
                **{name: value for name, value in given.items() if name in takes}, **library.numbers(self.options)
            )
            return torch.cat([attack(*batch) for batch in library.batches(x, y, self.batch_size)])


def _kinds() -> dict[str, Any]:
    """Return torchattacks' attacks by name, less those that are made of other attacks or of training data."""
    module = library.load(_MODULE)
    base = module.attack.Attack
    return {
        name: kind
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, base) and kind is not base
        if not {"attacks", "trainloader"} & set(library.parameters(kind))
    }


def _measures(kind: type) -> set[str]:
    """Return the norms that an attack's description says it searches in; empty where it says nothing."""
    stated = re.search(r"Distance Measure\s*:\s*(.*)", kind.__doc__ or "")
    return {norm.lower() for norm in re.findall(r"L(?:inf|\d)", stated[1])} if stated else set()
