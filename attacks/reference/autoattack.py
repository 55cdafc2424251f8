"""AutoAttack by its authors: the very code, one stage for each of its attacks."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, MinLen
from torch import Tensor, nn

from robusteval.attacks.base import Attack, WholeBatch
from robusteval.attacks.reference import library

Part = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]
Version = Literal["standard", "plus", "rand", "custom"]

_PARTS: dict[str, tuple[Part, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
# Targets of nine other classes need ten; the DLR loss looks at the three largest logits.
_CLASSES: dict[str, int] = {"apgd-t": 10, "fab-t": 10, "apgd-dlr": 3}
# The authors' own module where the user has it (from git), else its fork in the registry.
_MODULES = ("autoattack", "pyautoattack")
_LOGGER = "auto-attack"


@dataclass(frozen=True, kw_only=True)
class ReferenceAutoAttack(Attack):
    """AutoAttack in its authors' implementation (Croce & Hein 2020, https://arxiv.org/abs/2003.01690), or in its fork
    pyautoattack.

    The versions have the authors' parts, order and budgets; ``custom`` runs ``attacks`` in the order given, apgd-ce,
    apgd-dlr and fab with the five restarts that are the authors' default there. ``steps`` of APGD and FAB and
    ``queries`` of Square other than 100 and 5000 are not the published protocol. Each part runs on the images that
    stand, ``batch_size`` at a time. Standard in Linf costs an image that stands about 7850 forward and 1910 backward
    passes.
    """

    version: Version = "standard"
    attacks: Annotated[tuple[Part, ...], MinLen(1)] | None = None
    steps: Annotated[int, Ge(1)] = 100
    queries: Annotated[int, Ge(1)] = 5000
    batch_size: Annotated[int, Ge(1)] = 250

    method: ClassVar[str] = "reference/autoattack"
    revision: ClassVar[int] = 2
    norms: ClassVar[frozenset[str]] = frozenset(_NORMS)
    invariant: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if (self.version == "custom") != (self.attacks is not None):
            came = "none" if self.attacks is None else ", ".join(self.attacks)
            raise ValueError(
                f"version={self.version} with attacks={came}: version=custom needs attacks, as in "
                "attack.attacks=[apgd-ce,square], and no other version takes them"
            )
        if len(set(self._parts())) != len(self._parts()):
            raise ValueError(f"attacks={', '.join(self._parts())}: name each attack once")

    def stages(self, norm: str) -> tuple[tuple[str, Attack], ...]:
        options = {"version": self.version, "steps": self.steps, "queries": self.queries, "batch_size": self.batch_size}
        return tuple((part, UpstreamPart(part=part, **options)) for part in self._parts())

    def min_classes(self) -> int:
        return max(_CLASSES.get(part, 2) for part in self._parts())

    def library(self) -> str | None:
        return library.version(_module())

    def refusal(self, norm: str) -> str | None:
        return library.trouble(self.method, _module(), "autoattack")

    def _parts(self) -> tuple[Part, ...]:
        return _PARTS[self.version] if self.attacks is None else self.attacks


@dataclass(frozen=True, kw_only=True)
class UpstreamPart(WholeBatch):
    """One attack of AutoAttack as its ``version`` sets it up."""

    part: Part
    version: Version
    steps: int
    queries: int
    batch_size: int

    method: ClassVar[str] = ReferenceAutoAttack.method
    norms: ClassVar[frozenset[str]] = ReferenceAutoAttack.norms

    def stages(self, norm: str) -> tuple[tuple[str, Attack], ...]:
        return ((self.part, self),)

    def label(self) -> str:
        return f"{self.method} ({self.part})"

    def library(self) -> str | None:
        return library.version(_module())

    def run(self, network: nn.Module, x: Tensor, y: Tensor, *, norm: str, eps: float, seed: int) -> Tensor:
        with library.quiet(_LOGGER), torch.no_grad():
            attack = self._attack(network, _NORMS[norm], eps, seed, x.device)
            return torch.cat([attack.perturb(*batch) for batch in library.batches(x, y, self.batch_size)])

    def _attack(self, network: nn.Module, norm: str, eps: float, seed: int, device: torch.device) -> Any:
        """Return the part as the ensemble would run it: set up by the version, then as its evaluation sets it."""
        given = [self.part] if self.version == "custom" else None
        module = library.load(_module())
        if module.__name__ == "autoattack":
            signature = {"device": str(device), "verbose": False, "attacks_to_run": given or []}
        else:
            signature = {"device": device, "attacks": given}
        whole = module.AutoAttack(network, norm=norm, eps=eps, seed=seed, version=self.version, **signature)
        match self.part:
            case "apgd-ce" | "apgd-dlr":
                attack = whole.apgd
                attack.loss = self.part.removeprefix("apgd-")
            case "apgd-t":
                attack = whole.apgd_targeted
            case "square":
                attack = whole.square
                attack.n_queries = self.queries
            case "fab" | "fab-t":
                attack = whole.fab
                attack.targeted = self.part == "fab-t"
                if attack.targeted:
                    attack.n_restarts = 1
        attack.seed = seed
        if self.part.startswith("apgd"):
            rescale(attack, self.steps)
        elif self.part != "square":
            attack.n_iter = self.steps
        return attack


def rescale(attack: Any, steps: int) -> None:
    """Set the library's APGD to so many steps in all that it derives from them when it is made, for 100 of them."""
    attack.n_iter = attack.n_iter_orig = steps  # the latter for the large-eps schedule of L1
    attack.n_iter_2 = max(int(0.22 * steps), 1)
    attack.n_iter_min = max(int(0.06 * steps), 1)
    attack.size_decr = max(int(0.03 * steps), 1)


def _module() -> str:
    return next(filter(library.installed, _MODULES), _MODULES[-1])
