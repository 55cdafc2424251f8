"""Boards: which rows are compared with each other, and their ranks with ties."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from robusteval.leaderboard import protocol
from robusteval.leaderboard.protocol import Protocol
from robusteval.leaderboard.rows import Row, of_entry, robust_flags
from robusteval.metrics.paired import counts, mcnemar
from robusteval.published import robustbench
from robusteval.report.words import radius

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a row stands: its rank by accuracy, equal ones sharing it, and the ranks that sampling leaves open.

    ``low`` is one more than the number of rows that are better by more than sampling error, ``high`` the number of rows
    that are not worse by more than that. A row that is not comparable has no rank: None in all three.
    """

    rank: int | None = None
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True, kw_only=True)
class Board:
    """One ranking: rows in order, their places, and the published protocol where there is one."""

    dataset: str
    norm: str
    eps: float | None
    attack: str
    protocol: Protocol | None
    rows: tuple[Row, ...]
    places: tuple[Place, ...]

    @property
    def title(self) -> str:
        """Data, threat and attack in a few words."""
        ball = self.norm if self.eps is None else f"{self.norm} {radius(self.eps)}"
        return f"{self.dataset}, {ball}" + ("" if self.norm == "corruptions" else f", {self.attack}")


def boards(
    ours: Sequence[Row], *, against: Literal["robustbench"] | None, dataset: str | None = None, norm: str | None = None
) -> list[Board]:
    """Return the boards that the runs are on, and those of published entries where they are asked for.

    ``against`` puts the runs beside the published entries of the same data and norm; with no run on any of these, all
    published boards are shown (those that ``dataset`` and ``norm`` admit). Runs on no published board are ranked among
    those of the same data, threat and attack.
    """
    ours = [row for row in ours if dataset in (None, row.dataset) and norm in (None, row.norm)]
    if against is None:
        return _own(ours)
    published = [
        (where, threat)
        for where, threat in robustbench.boards()
        if dataset in (None, where) and norm in (None, threat.lower())
    ]
    beside = {
        (where, threat): [row for row in ours if (row.dataset, row.norm) == (where, threat.lower())]
        for where, threat in published
    }
    shown = [board for board in published if beside[board]] or (published if not ours else [])
    rest = [row for row in ours if not any(row in rows for rows in beside.values())]
    return [*(_published(*board, beside[board]) for board in shown), *_own(rest)]


def ranks(rows: Sequence[Row]) -> tuple[Place, ...]:
    """Return the places of rows that are in order, the most robust first."""
    ranked = [row for row in rows if row.comparable]
    better = _better(ranked)
    places = iter(
        Place(
            rank=1 + sum(other.robust > row.robust for other in ranked),
            low=1 + int(better[:, number].sum()),
            high=len(ranked) - int(better[number].sum()),
        )
        for number, row in enumerate(ranked)
    )
    return tuple(next(places) if row.comparable else Place() for row in rows)


def order(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, the most robust first; equal ones by name."""
    return sorted(rows, key=lambda row: (-row.robust, row.name))


def _published(dataset: str, threat: str, ours: Sequence[Row]) -> Board:
    found = protocol.of(dataset, threat)
    rows = order([*ours, *map(of_entry, robustbench.board(dataset, threat))])
    return Board(
        dataset=dataset,
        norm=threat.lower(),
        eps=None if found is None else found.eps,
        attack="AutoAttack",
        protocol=found,
        rows=tuple(rows),
        places=ranks(rows),
    )


def _own(rows: Sequence[Row]) -> list[Board]:
    """Return a board for each data, threat and attack: there a run differs from the first one, not from a protocol."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        goal = "" if row.results is None else row.results["threat"]["goal"]
        groups.setdefault((row.dataset, row.norm, row.eps or 0.0, row.by, goal), []).append(row)
    found = []
    for key in sorted(groups):
        members = order(groups[key])
        members = [replace(row, comparable=True, differences=_unlike(row, members[0])) for row in members]
        found.append(
            Board(
                dataset=key[0],
                norm=key[1],
                eps=members[0].eps,
                attack=key[3],
                protocol=None,
                rows=tuple(members),
                places=ranks(members),
            )
        )
    return found


def _unlike(row: Row, first: Row) -> tuple[str, ...]:
    """Return in which ways a run is no repetition of the first one of its board with another model."""
    mine, theirs = row.results or {}, first.results or {}
    options = [f"{key}={value}" for key, value in mine["attack"].items() if theirs["attack"].get(key, value) != value]
    same = mine["dataset"] == theirs["dataset"]
    images = () if same else ((f"n={row.n}, not {first.n}" if row.n != first.n else "other images than the first"),)
    return (*images, *options)


def _better(rows: Sequence[Row]) -> np.ndarray:
    """Return [i, j]: whether row i is more robust than row j by more than sampling error."""
    test = _tester()
    found = np.zeros((len(rows), len(rows)), dtype=bool)
    for i, first in enumerate(rows):
        for j, second in enumerate(rows):
            found[i, j] = first.robust > second.robust and test(first, second)
    return found


def _tester() -> Callable[[Row, Row], bool]:
    """Return the test of a difference: exact McNemar where both are ours on the same images, else two proportions."""
    kept: dict[int, dict[int, bool] | None] = {}

    def flags(row: Row) -> dict[int, bool] | None:
        if id(row) not in kept:
            kept[id(row)] = robust_flags(row)
        return kept[id(row)]

    def test(first: Row, second: Row) -> bool:
        if first.results and second.results and first.results["dataset"] == second.results["dataset"]:
            one, other = flags(first), flags(second)
            if one is not None and other is not None and one.keys() == other.keys():
                pair = [np.array([found[image] for image in one]) for found in (one, other)]
                return mcnemar(counts(*pair)) < LEVEL
        return protocol.apart(first.robust, first.n, second.robust, second.n)

    return test
