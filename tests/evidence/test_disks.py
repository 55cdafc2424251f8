"""Full disks, folders that may not be written or vanish: exit 1 and one sentence, and the same command goes on."""

import errno
import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robusteval.cli import run
from robusteval.engine.search import Searcher
from robusteval.errors import RobustevalError
from robusteval.evidence import atomic, lock
from robusteval.evidence.folder import RunFolder


def folder_of(runs: Path) -> Path:
    (found,) = runs.glob("*/run.json")
    return found.parent


def one_sentence(capsys: pytest.CaptureFixture[str], words: str) -> None:
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("robusteval: ")]
    assert len(said) == 1
    assert words in said[0]
    assert "same command" in said[0]


def same(folder: Path, finished: Path) -> bool:
    names = [sorted(p.name for p in path.rglob("*.parquet")) for path in (folder, finished)]
    return (
        names[0] == names[1]
        and (folder / "samples.parquet").read_bytes() == (finished / "samples.parquet").read_bytes()
    )


def intact(folder: Path) -> int:
    """Return how many shards there are, all of them whole."""
    whole = RunFolder(folder)
    looked = [whole.shards(stage).inspect() for stage in whole.stages]
    assert not any(faulty for _, faulty in looked)
    assert not list(folder.rglob("*.part"))
    return sum(len(found) for found, _ in looked)


Mount = Callable[[str], object]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Mount]]:
    """Yield a small disk of its own and a function that mounts it again with other options."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "none", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small disk")
    try:
        yield place, lambda options: subprocess.check_call(["mount", "-o", f"remount,{options}", str(place)])
    finally:
        subprocess.check_call(["umount", str(place)])


def test_a_full_disk_loses_nothing(
    disk: tuple[Path, Mount], finished: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    place, mount = disk
    assert run([*command, f"runs.dir={place}"]) == 1
    one_sentence(capsys, "No space left on device")
    folder = folder_of(place)
    before = intact(folder)
    assert before >= 1
    assert not (folder / "results.json").exists()
    assert run([*command, f"runs.dir={place}"]) == 1  # still full
    one_sentence(capsys, "No space left on device")
    assert intact(folder) >= before
    mount("size=20m")
    assert run([*command, f"runs.dir={place}"]) == 0
    assert same(folder, finished)
    assert not (folder / "errors").exists()


def test_a_disk_that_became_read_only(
    disk: tuple[Path, Mount], finished: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    place, mount = disk
    mount("size=20m")
    folder = Path(shutil.copytree(finished, place / finished.name))
    (folder / "results.json").unlink()
    victim = next(folder.glob("shards/*pgd/00002-*"))
    victim.unlink()
    mount("ro")
    assert run([*command, f"runs.dir={place}"]) == 1
    one_sentence(capsys, "Read-only file system")
    assert intact(folder) == 5
    mount("rw")
    assert run([*command, f"runs.dir={place}"]) == 0
    assert same(folder, finished)


def test_a_disk_that_becomes_read_only_in_the_midst(
    disk: tuple[Path, Mount],
    finished: Path,
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, mount = disk
    mount("size=20m")
    original, calls = Searcher.run, []

    def search(self: Searcher, *given: Any) -> Any:
        calls.extend([1] * (not given[0].draws.startswith("probe")))
        if len(calls) == 2:
            mount("ro")
        return original(self, *given)

    monkeypatch.setattr(Searcher, "run", search)
    assert run([*command, f"runs.dir={place}"]) == 1
    one_sentence(capsys, "Read-only file system")
    mount("rw")
    monkeypatch.undo()
    # The lock could not be taken away: this very process would be taken for its holder.
    for left in folder_of(place).glob("locks/1-of-1"):
        left.unlink()
    assert run([*command, f"runs.dir={place}"]) == 0
    assert same(folder_of(place), finished)


def test_files_that_may_not_grow(
    tmp_path: Path, finished: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A quota, as any user can be under: the adversarials of the last chunk take more than 60 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        assert run([*command, f"runs.dir={tmp_path}"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    one_sentence(capsys, "File too large")
    folder = folder_of(tmp_path)
    assert intact(folder) == 5  # of the last chunk only the clean one
    assert "File too large" in (folder / "errors" / "1-of-1.txt").read_text()
    assert run([*command, f"runs.dir={tmp_path}"]) == 0
    assert same(folder, finished)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(
    damaged: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (damaged / "results.json").unlink()
    locks = damaged / "locks"
    locks.chmod(0o555)
    try:
        assert run([*command, f"runs.dir={damaged.parent}"]) == 1
        one_sentence(capsys, "Permission denied")
    finally:
        locks.chmod(0o755)
    assert run([*command, f"runs.dir={damaged.parent}"]) == 0


def test_a_run_folder_that_vanishes_in_the_midst(
    tmp_path: Path,
    finished: Path,
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, calls = Searcher.run, []

    def search(self: Searcher, *given: Any) -> Any:
        calls.extend([1] * (not given[0].draws.startswith("probe")))
        if len(calls) == 2:
            folder_of(tmp_path / "runs").rename(tmp_path / "elsewhere")
        return original(self, *given)

    monkeypatch.setattr(Searcher, "run", search)
    assert run([*command, f"runs.dir={tmp_path / 'runs'}"]) == 1
    one_sentence(capsys, "vanished while it was being written to")
    assert not list((tmp_path / "runs").iterdir())
    assert intact(tmp_path / "elsewhere") == 3
    folder = (tmp_path / "elsewhere").rename(tmp_path / "runs" / finished.name)
    (folder / "locks" / "1-of-1").unlink()  # of this very process, which could not find it again
    monkeypatch.undo()
    assert run([*command, f"runs.dir={tmp_path / 'runs'}"]) == 0
    assert same(folder, finished)


def test_a_disk_that_is_full_at_the_figures(
    damaged: Path, command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (damaged / "results.json").unlink()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("robusteval.engine.finish.draw", full)
    assert run([*command, f"runs.dir={damaged.parent}"]) == 1
    one_sentence(capsys, "figures could not be written (No space left on device)")
    monkeypatch.undo()
    assert run([*command, f"runs.dir={damaged.parent}"]) == 0


def test_the_heartbeat_survives_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, original, refused = tmp_path / "locks" / "1-of-1", atomic.write, []

    def full(target: Path, data: bytes) -> None:
        if len(refused) < 3:
            refused.append(target)
            raise RobustevalError("No space left on device")
        original(target, data)

    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    with lock.hold(path.parent, "1-of-1"):
        begun = json.loads(path.read_text())["heartbeat"]
        monkeypatch.setattr(atomic, "write", full)
        until = time.monotonic() + 20
        while json.loads(path.read_text())["heartbeat"] == begun:
            assert time.monotonic() < until
        assert len(refused) == 3


def test_a_place_that_is_no_folder_is_the_users_mistake(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run([*command, f"runs.dir={tmp_path / 'file' / 'runs'}"]) == 2
    assert "runs.dir=FOLDER" in capsys.readouterr().err
