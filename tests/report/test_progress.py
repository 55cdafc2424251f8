"""Progress: what a log and a terminal get to see."""

import io

import pytest
from rich.console import Console

from robusteval.report.progress import bar, plain, progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_at_intervals_with_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with plain(100, "pgd", interval=10, clock=clock) as advance:
        for second in range(1, 26):
            clock.now = float(second)
            advance(2, note=f"{second} broken")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "pgd: 20/100 (20%), 0:10 gone, 0:40 left, 10 broken",
        "pgd: 40/100 (40%), 0:20 gone, 0:30 left, 20 broken",
        "pgd: 50/100, 0:25, 25 broken",
    ]


def test_nothing_is_claimed_done_when_the_block_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with progress(10, "pgd") as advance:
            advance(3)
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert capsys.readouterr().err == ""


def test_an_inner_progress_is_silent_and_the_next_one_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(4, "outer") as outer, progress(2, "inner") as inner:
        outer(4)
        inner(2)
    with progress(1, "next") as advance:
        advance(1)
    assert capsys.readouterr().err.splitlines() == ["outer: 4/4, 0:00", "next: 1/1, 0:00"]


def test_nothing_to_do_divides_by_no_zero(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with plain(0, "pgd", clock=clock) as advance:
        clock.now = 60.0
        advance(0)
    assert capsys.readouterr().err == "pgd: 0/0, 1:00\n"


def test_hours_are_written_as_hours(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with plain(10, "pgd", clock=clock) as advance:
        clock.now = 3661.0
        advance(5)
    assert "1:01:01 gone, 1:01:01 left" in capsys.readouterr().err


def test_the_bar_counts_and_takes_brackets_literally() -> None:
    screen = io.StringIO()
    with bar(8, "pgd [0.3]", Console(file=screen, force_terminal=True, width=120)) as advance:
        advance(3, note="[red]2 broken")
        advance(5)
    written = screen.getvalue()
    assert "8/8" in written
    assert "pgd [0.3]" in written
    assert "[red]2 broken" in written
