"""On a real Slurm: one evaluation over several jobs, killed and cancelled, ends in the bytes of one process."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


def test_two_killed_and_one_cancelled_and_one_run_in_wandb(place: Any, whole: dict[str, Any]) -> None:
    sharded = [*place.evaluation, *place.shared, "runtime.shards=6", *place.on_slurm]
    first = place.start(*sharded, HOLD="1")
    holders = place.holders(6)
    for name in ("2-of-6", "5-of-6"):
        os.kill(holders[name], signal.SIGKILL)
    place.said("scancel", place.jobs()["3-of-6"])
    place.until(lambda: not Path(f"/proc/{holders['3-of-6']}").exists(), "the end of the cancelled job")
    (place.path / "go").touch()
    _, err = first.communicate(timeout=400)
    assert first.returncode == 75, err
    assert not (place.folder / "results.json").exists()
    code, out, err = place.run(*sharded)
    assert code == 0, err
    assert int(re.search(r"(\d+) jobs submitted", err)[1]) == 3  # pyright: ignore[reportOptionalSubscript]
    assert place.outcome(place.folder) == whole
    assert place.wandb_runs() == 1
    assert {Path(line) for line in out.splitlines()} == {place.folder.relative_to(place.path)}
