"""The order in which jobs enter slots."""

import pytest

from robusteval.engine.queue import Queue, Ticket


def test_first_jobs_come_before_second_ones_and_in_order() -> None:
    queue = Queue([5, 3, 9], jobs=2)
    first = queue.take(2)
    assert [queue.position(ticket) for ticket in first] == [5, 3]
    queue.again(first[0])
    assert queue.take(9) == [Ticket(0, 2), Ticket(1, 0)]
    assert queue.take(1) == []


def test_a_sample_has_one_job_at_a_time_and_only_as_many_as_there_are() -> None:
    queue = Queue([7], jobs=3)
    seen = []
    while tickets := queue.take(4):
        assert len(tickets) == 1
        seen.append(tickets[0].rank)
        queue.again(tickets[0])
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_a_settled_sample_is_not_queued_again(slots: int) -> None:
    """Sample i settles in its job of rank i: exactly i + 1 jobs of it run, at any number of slots."""
    queue = Queue(range(4), jobs=3)
    ran: list[tuple[int, int]] = []
    while tickets := queue.take(slots):
        for ticket in tickets:
            ran.append((queue.position(ticket), ticket.rank))
            if ticket.rank < ticket.place:
                queue.again(ticket)
    assert sorted(ran) == [(i, rank) for i in range(4) for rank in range(min(i + 1, 3))]


def test_an_empty_queue_gives_nothing() -> None:
    assert Queue([], jobs=5).take(3) == []
