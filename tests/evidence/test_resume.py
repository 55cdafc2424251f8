"""What is damaged is found, set aside and computed again; what is held is refused; what is stale is taken over."""

import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from robusteval.cli import run
from robusteval.evidence import atomic, lock
from tests.evidence import forks


def unfinish(folder: Path) -> None:
    """Take away what is derived, as if the run had been killed at its end."""
    for name in ("results.json", "samples.parquet"):
        (folder / name).unlink()


def shard(folder: Path, stage: str, number: int) -> Path:
    (path,) = (folder / "shards").glob(f"*-{stage}/{number:05d}-*.parquet")
    return path


def flip(path: Path, at: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("stage", ["clean", "pgd"])
@pytest.mark.parametrize("damage", [flip, truncate, empty, Path.unlink])
def test_damaged_shards_are_computed_again(
    damaged: Path, finished: Path, command: list[str], stage: str, damage: Callable[[Path], None]
) -> None:
    unfinish(damaged)
    victim = shard(damaged, stage, 1)
    damage(victim)
    assert run([*command, f"runs.dir={damaged.parent}"]) == 0
    assert victim.read_bytes() == shard(finished, stage, 1).read_bytes()
    assert (damaged / "samples.parquet").read_bytes() == (finished / "samples.parquet").read_bytes()
    assert (damaged / "damaged").exists() == (damage is not Path.unlink)


@pytest.mark.parametrize("stage", ["clean", "pgd"])
def test_a_shard_under_another_chunks_name_is_foreign(
    damaged: Path, finished: Path, command: list[str], stage: str
) -> None:
    unfinish(damaged)
    first, second = shard(damaged, stage, 0), shard(damaged, stage, 1)
    digest = first.stem.rpartition("-")[2]
    second.unlink()
    shutil.copy(first, first.with_name(f"00001-{digest}.parquet"))
    assert run([*command, f"runs.dir={damaged.parent}"]) == 0
    assert (damaged / "samples.parquet").read_bytes() == (finished / "samples.parquet").read_bytes()


def test_a_shard_of_another_run_is_foreign(damaged: Path, finished: Path, command: list[str], tmp_path: Path) -> None:
    assert run([*command, "seed=1", f"runs.dir={tmp_path / 'other'}"]) == 0
    (other,) = (path.parent for path in (tmp_path / "other").glob("*/run.json"))
    unfinish(damaged)
    for stage in ("clean", "pgd"):
        victim, foreign = shard(damaged, stage, 2), shard(other, stage, 2)
        victim.unlink()
        shutil.copy(foreign, victim.with_name(foreign.name))
    assert run([*command, f"runs.dir={damaged.parent}"]) == 0
    assert (damaged / "samples.parquet").read_bytes() == (finished / "samples.parquet").read_bytes()


def swap(path: Path) -> None:
    """Put another chunk's file in the place of this one."""
    other = next(one for one in sorted(path.parent.iterdir()) if one != path)
    shutil.copy(other, path)


@pytest.mark.parametrize("damage", [flip, truncate, empty, swap, Path.unlink])
def test_damaged_adversarials_are_made_again(
    damaged: Path, finished: Path, command: list[str], damage: Callable[[Path], None]
) -> None:
    unfinish(damaged)
    victim = sorted((damaged / "adversarials").rglob("*.safetensors"))[0]
    damage(victim)
    assert run([*command, f"runs.dir={damaged.parent}"]) == 0
    assert victim.read_bytes() == (finished / victim.relative_to(damaged)).read_bytes()
    assert (damaged / "samples.parquet").read_bytes() == (finished / "samples.parquet").read_bytes()
    set_aside = list((damaged / "damaged").rglob(victim.name))
    assert len(set_aside) == (damage is not Path.unlink)


def test_a_complete_run_is_shown_without_a_pass(
    damaged: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("robusteval.engine.passes.Passes.logits", None)  # any pass would raise
    assert run([*command, f"runs.dir={damaged.parent}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(damaged)


def test_more_evidence_than_a_run_kept_is_refused(
    damaged: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "evidence=all", f"runs.dir={damaged.parent}"]) == 2
    assert "runs.fresh=true" in capsys.readouterr().err
    assert run([*command, "evidence=none", f"runs.dir={damaged.parent}"]) == 0


def test_fresh_sets_the_old_run_aside(damaged: Path, command: list[str]) -> None:
    (damaged / "mark").touch()
    assert run([*command, "runs.fresh=true", f"runs.dir={damaged.parent}"]) == 0
    assert not (damaged / "mark").exists()
    assert (damaged / "results.json").is_file()
    assert (damaged.parent / ".set_aside" / f"{damaged.name}.1" / "mark").exists()


def test_changed_weights_are_refused(damaged: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    unfinish(damaged)
    plan = json.loads((damaged / "run.json").read_text())
    plan["digests"]["model"] = "0" * 64
    (damaged / "run.json").write_text(json.dumps(plan))
    assert run([*command, f"runs.dir={damaged.parent}"]) == 2
    assert "weights changed since this run began" in capsys.readouterr().err


def holder(path: Path, **changes: object) -> None:
    me = {"host": "elsewhere/pid:[1]", "pid": 1, "started": "1", "slurm": None, "heartbeat": time.time()}
    atomic.write(path, json.dumps({**me, **changes}).encode())


def test_a_fresh_lock_of_another_host_is_respected(
    damaged: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    unfinish(damaged)
    holder(damaged / "locks" / "1-of-1", host="node7/pid:[1]", pid=4242, slurm="99")
    assert run([*command, f"runs.dir={damaged.parent}"]) == 1
    told = capsys.readouterr().err
    assert "node7, process 4242, Slurm job 99" in told
    assert re.search(r"sign of life \d+ s ago on that machine", told)
    assert not (damaged / "results.json").exists()


def test_a_stale_lock_is_taken_over(damaged: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    unfinish(damaged)
    holder(damaged / "locks" / "1-of-1", heartbeat=time.time() - lock.STALE_SECONDS - 1)
    assert run([*command, f"runs.dir={damaged.parent}"]) == 0
    assert "was left by elsewhere, process 1, which is gone; going on from there" in capsys.readouterr().err


def test_a_job_of_slurm_waits_for_a_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own former life on another node gives none; whoever lives is told from it by the next heartbeat."""
    monkeypatch.setattr(lock, "STALE_SECONDS", 3.0)
    path = tmp_path / "locks" / "1-of-1"
    holder(path)
    with pytest.raises(lock.Held), lock.hold(path.parent, path.name):
        pass  # nobody waits on the command line
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    with lock.hold(path.parent, path.name) as gone:
        assert gone is not None
        assert gone.host.startswith("elsewhere")
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(0.2):
            holder(path)

    holder(path)
    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(lock.Held, match="is being run by elsewhere"), lock.hold(path.parent, path.name):
            pass
    finally:
        ended.set()
        thread.join()


def test_a_damaged_lock_is_taken_over(damaged: Path, command: list[str]) -> None:
    unfinish(damaged)
    (damaged / "locks").mkdir(exist_ok=True)
    (damaged / "locks" / "1-of-1").write_text("{")
    assert run([*command, f"runs.dir={damaged.parent}"]) == 0


LONG = ["model=mnist_cnn_at", "dataset.n=400", "attack.steps=4000", "engine.chunk=16", "logger=none"]


def begun(runs: Path) -> int:
    """Start a long evaluation as a process of its own, wait until its first chunk is written, and return its id."""
    runs.mkdir()
    log = runs.parent / "log"
    process = forks.start([*LONG, f"runs.dir={runs}"], log)
    until = time.monotonic() + 120
    while not list(runs.glob("*/shards/*clean/*.parquet")):
        assert os.waitpid(process, os.WNOHANG) == (0, 0), log.read_text()
        assert time.monotonic() < until
        time.sleep(0.05)
    return process


def test_the_second_process_says_who_holds_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    first = begun(runs)
    try:
        assert run([*LONG, f"runs.dir={runs}"]) == 1
        told = capsys.readouterr().err
        assert f"process {first}; wait for it, or stop it and run the same command again" in told
    finally:
        os.kill(first, signal.SIGKILL)
        forks.wait(first)
    (held,) = runs.glob("*/locks/1-of-1")
    assert lock.read(held) is not None
    assert lock.fresh(held) is None  # its process is gone, so nobody has to wait for the heartbeat


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_leaves_nothing_broken(tmp_path: Path, number: signal.Signals) -> None:
    runs = tmp_path / "runs"
    process = begun(runs)
    os.kill(process, number)
    assert forks.wait(process) == 75
    said = (tmp_path / "log").read_text()
    assert "run the same command to go on" in said
    assert "Traceback" not in said
    (folder,) = (path.parent for path in runs.glob("*/run.json"))
    assert not (folder / "results.json").exists()
    assert not list((folder / "locks").glob("[0-9]*"))
