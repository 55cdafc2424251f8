"""High-pass filter: only fine structure is left."""

from dataclasses import dataclass
from typing import ClassVar

from robusteval.attacks.low_pass import LowPass


@dataclass(frozen=True, kw_only=True)
class HighPass(LowPass):
    """Keeps the highest share ``cutoff`` of the frequencies: outside a square as published (Gavrikov & Keuper 2024,
    https://arxiv.org/abs/2404.01509), which takes the constant away too and what is then below 0, or outside a circle,
    with the constant.
    """

    method: ClassVar[str] = "high_pass"
    high: ClassVar[bool] = True
