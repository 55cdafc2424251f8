"""AutoAttack: four attacks of different kinds in a row, each on the images that still stand."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from robusteval.attacks.apgd import APGD
from robusteval.attacks.base import Attack
from robusteval.attacks.fab import FAB
from robusteval.attacks.square import Square

_EOT = 20


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """The ensemble by which robustness is compared (Croce & Hein 2020, https://arxiv.org/abs/2003.01690), with the
    stages, order and budgets of its reference implementation.

    ``standard``: APGD on the cross-entropy, APGD on the targeted DLR loss and FAB-T with 9 targets each, Square. In L1
    (Croce & Hein 2021, https://arxiv.org/abs/2103.01208) the first with 5 restarts, the second with 5 targets, both
    with the large-eps schedule. ``plus`` adds APGD on the DLR loss and untargeted FAB and gives the untargeted ones 5
    restarts each. ``rand``, for randomised networks: APGD on the cross-entropy and on the DLR loss, every gradient the
    mean of 20. ``steps`` and ``queries`` other than the defaults are cheaper or dearer, and no longer the standard.
    """

    version: Literal["standard", "plus", "rand"] = "standard"
    steps: Annotated[int, Ge(1)] = 100
    queries: Annotated[int, Ge(1)] = 5000

    method: ClassVar[str] = "autoattack"
    revision: ClassVar[int] = 2
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2", "l1"})
    optimum: ClassVar[bool] = True
    gradients: ClassVar[bool] = True

    def min_classes(self) -> int:
        return max(stage.min_classes() for _, stage in self.stages("linf"))

    def max_classes(self) -> int | None:
        return FAB.most_classes if self.version == "plus" else None

    def stages(self, norm: str) -> tuple[tuple[str, Attack], ...]:
        steps, restarts = self.steps, 5
        square = ("square", Square(queries=self.queries))
        fab_t = ("fab-t", FAB(steps=steps))
        match self.version:
            case "standard":
                l1 = norm == "l1"
                return (
                    ("apgd-ce", APGD(steps=steps, n_restarts=restarts if l1 else 1)),
                    ("apgd-t", APGD(steps=steps, loss="targeted_dlr", n_targets=5 if l1 else 9)),
                    fab_t,
                    square,
                )
            case "plus":
                return (
                    ("apgd-ce", APGD(steps=steps, n_restarts=restarts, large_eps=False)),
                    ("apgd-dlr", APGD(steps=steps, n_restarts=restarts, loss="dlr", large_eps=False)),
                    ("fab", FAB(steps=steps, n_restarts=restarts, targeted=False)),
                    square,
                    ("apgd-t", APGD(steps=steps, loss="targeted_dlr", large_eps=False)),
                    fab_t,
                )
            case "rand":
                return (
                    ("apgd-ce", APGD(steps=steps, eot=_EOT, large_eps=False)),
                    ("apgd-dlr", APGD(steps=steps, eot=_EOT, loss="dlr", large_eps=False)),
                )

    def published(self) -> bool:
        """Return whether the budgets are those of the publication."""
        return self.steps == 100 and self.queries == 5000
