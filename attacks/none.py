"""No attack: clean accuracy and calibration alone."""

from dataclasses import dataclass
from typing import ClassVar

from robusteval.attacks.base import Attack


@dataclass(frozen=True, kw_only=True)
class NoAttack(Attack):
    """Leaves every image as it is; robust accuracy equals clean accuracy."""

    method: ClassVar[str] = "none"
    norms: ClassVar[frozenset[str]] = frozenset({"linf", "l2", "l1", "unbounded"})
    own_set: ClassVar[bool] = True

    def stages(self, norm: str) -> tuple[tuple[str, Attack], ...]:
        return ()
