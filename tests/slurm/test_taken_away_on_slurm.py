"""On a real Slurm: jobs whose time is up, and jobs that make room for others, go on by themselves."""

from typing import Any

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


def test_time_is_up_and_the_job_goes_on_by_itself(timed_out: tuple[Any, Any], whole: dict[str, Any]) -> None:
    place, process = timed_out
    place.until(lambda: max(place.restarts(), default=0) >= 1, "the job to requeue itself")
    assert len(list(place.folder.glob("shards/*pgd/*.parquet"))) < 12
    (place.path / "go").touch()
    _, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert place.outcome(place.folder) == whole


def test_all_preempted_and_no_hand_laid_on(place: Any, whole: dict[str, Any]) -> None:
    process = place.start(*place.evaluation, *place.shared, "runtime.shards=6", *place.on_slurm, HOLD="1")
    place.holders(6)
    place.said("srun", "--partition=high", "--ntasks=8", "--nodes=2", "--mem-per-cpu=1", "sleep", "1")
    (place.path / "go").touch()
    _, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert all(count >= 1 for count in place.restarts())
    assert len(place.restarts()) == 6
    assert place.outcome(place.folder) == whole
    assert place.wandb_runs() == 1
