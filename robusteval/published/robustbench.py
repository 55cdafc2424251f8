"""RobustBench's leaderboard (Croce et al. 2021, https://arxiv.org/abs/2010.09670) and the names of its model zoo.

Facts read from its repository; ``robustbench.json`` beside this file states source, commit, date and licence. Imports
neither torch nor robustbench.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

FILE = Path(__file__).with_suffix(".json")

DATASETS = ("cifar10", "cifar100", "imagenet")
# The zoo's name of each threat, by ours.
THREATS = MappingProxyType({"linf": "Linf", "l2": "L2", "corruptions": "corruptions"})
# How many images each published accuracy is of: the test set, or 5000 of ImageNet's validation pictures, always the
# same; the corruptions of ImageNet are averaged over those 5000 at each of 5 severities of 15 kinds.
IMAGES = MappingProxyType({"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One published entry. Accuracies are in per cent, as published, ``eps`` as it is written there ("8/255").

    ``external`` is the lowest accuracy that an evaluation other than AutoAttack has found, where one went lower.
    ``unreliable`` is what RobustBench says of the AutoAttack evaluation; None where it says nothing. ``zoo`` tells
    whether the weights can be had by name.
    """

    dataset: str
    threat: str
    name: str
    zoo: bool
    title: str
    link: str
    venue: str
    architecture: str
    additional_data: bool
    number_forward_passes: int
    eps: str | None
    clean_acc: float
    autoattack_acc: float | None = None
    external: float | None = None
    unreliable: bool | None = None
    corruptions_acc: float | None = None
    corruptions_mce: float | None = None
    corruptions_acc_3d: float | None = None
    corruptions_mce_3d: float | None = None

    @property
    def accuracy(self) -> float:
        """The accuracy that ranks, in per cent: ``external`` where there is one, else AutoAttack's, else corrupted."""
        for value in (self.external, self.autoattack_acc, self.corruptions_acc):
            if value is not None:
                return value
        raise ValueError(f"{self.dataset} {self.threat} {self.name} has no accuracy to rank by")

    @property
    def radius(self) -> float | None:
        """The radius as a number; None where none is stated. Of corruptions it is what the network was trained at."""
        if self.eps is None:
            return None
        numerator, _, denominator = self.eps.partition("/")
        return float(numerator) / float(denominator or 1)


@cache
def facts() -> dict[str, Any]:
    """Return where the entries come from: source, commit, its date, the date of reading, licence."""
    return {key: value for key, value in _content().items() if key != "entries"}


@cache
def entries() -> tuple[Entry, ...]:
    """Return all published entries, by dataset, threat and name."""
    return tuple(Entry(**entry) for entry in _content()["entries"])


def board(dataset: str, threat: str) -> list[Entry]:
    """Return the entries of one leaderboard in its order: the highest accuracy first, equal ones by name."""
    found = [entry for entry in entries() if (entry.dataset, entry.threat) == (dataset, threat)]
    return sorted(found, key=lambda entry: (-entry.accuracy, entry.name))


def boards() -> list[tuple[str, str]]:
    """Return the (dataset, threat) of every leaderboard, the largest first."""
    pairs = [(entry.dataset, entry.threat) for entry in entries()]
    return sorted(set(pairs), key=lambda pair: (-pairs.count(pair), pair))


def find(dataset: str, threat: str, name: str) -> Entry | None:
    """Return the entry of that name, or None."""
    return next((e for e in entries() if (e.dataset, e.threat, e.name) == (dataset, threat, name)), None)


def zoo(dataset: str | None = None, threat: str | None = None) -> Sequence[Entry]:
    """Return the entries whose weights can be had by name, of all or one dataset and threat."""
    return [
        entry
        for entry in entries()
        if entry.zoo and dataset in (None, entry.dataset) and threat in (None, entry.threat)
    ]


@cache
def imagenet_pictures() -> tuple[int, ...]:
    """Return the numbers, ascending, of the 5000 validation pictures of ILSVRC 2012 that the leaderboard is about."""
    return tuple(json.loads(FILE.with_name("imagenet_5000.json").read_text(encoding="utf-8"))["pictures"])


@cache
def _content() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))
