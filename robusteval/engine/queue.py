"""The queue of jobs: which (sample, restart, target) goes into the next free slot."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple


class Ticket(NamedTuple):
    """One job: its rank within the sample, and the sample's place in the order of the chunk."""

    rank: int
    place: int


class Queue:
    """Jobs of a chunk, all first ones before any second one.

    A sample has at most one job at a time, and its next one only once that has failed. So which job breaks a sample,
    and what it cost, does not depend on the number of slots.
    """

    def __init__(self, positions: Sequence[int], jobs: int) -> None:
        self._positions = positions
        self.jobs = jobs
        self._ready = [Ticket(0, place) for place in range(len(positions))]  # sorted, so a heap already

    def take(self, slots: int) -> list[Ticket]:
        """Return up to ``slots`` jobs that may start now."""
        return [heapq.heappop(self._ready) for _ in range(min(slots, len(self._ready)))]

    def position(self, ticket: Ticket) -> int:
        """Return the position in the chunk of a job's sample."""
        return self._positions[ticket.place]

    def again(self, ticket: Ticket) -> None:
        """Queue the sample's next job, if it has one, after this one ended without settling it."""
        if ticket.rank + 1 < self.jobs:
            heapq.heappush(self._ready, Ticket(ticket.rank + 1, ticket.place))
