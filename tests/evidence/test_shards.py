"""One evaluation spread over tasks: in any order, killed and run again, beside each other; the same bytes as one."""

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from robusteval import sharding
from robusteval.cli import run
from robusteval.errors import RobustevalError, UserError
from robusteval.evidence import atomic, lock
from robusteval.evidence.folder import RunFolder

DRIVER = Path(__file__).parent / "shard_driver.py"


def folder_of(runs: Path) -> Path:
    (found,) = runs.glob("*/run.json")
    return found.parent


def outcome(folder: Path) -> dict[str, Any]:
    """Return what may not depend on who computed: samples, evidence, results but for their times."""
    results = json.loads((folder / "results.json").read_text())
    results["cost"] = {key: value for key, value in results["cost"].items() if key.endswith("_passes")}
    evidence = [path for part in ("shards", "adversarials") for path in (folder / part).rglob("*.*")]
    return {
        "samples": (folder / "samples.parquet").read_bytes(),
        "evidence": sorted(str(path.relative_to(folder)) for path in evidence),
        "results": json.dumps({key: value for key, value in results.items() if key not in ("provenance", "sinks")}),
    }


def others(path: Path, **changes: object) -> None:
    """Write the lock of a process on another machine that is alive."""
    path.parent.mkdir(exist_ok=True, parents=True)
    holder = {"host": "node7/pid:[1]", "pid": 42, "started": "1", "slurm": "99", "heartbeat": time.time()}
    path.write_text(json.dumps({**holder, **changes}))


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (["runtime.shards=3"], "runtime.shard=1/3,2/3,3/3"),
        (["attack=fgsm,pgd", "runtime.shards=2"], "runtime.shard=1/2,2/2"),
        (["runtime.shards=1"], None),
        (["runtime.shards=8", "runtime.shard=3/8"], None),
        (["runtime.shards=many"], None),  # refused with the other options
        ([], None),
    ],
)
def test_shards_become_a_sweep(given: list[str], made: str | None) -> None:
    assert sharding.spread(given) == (None if made is None else [*given, made])


@pytest.mark.parametrize("given", ["runtime.shards=2,3", "runtime.shards=10001"])
def test_shards_that_cannot_be_meant(given: str) -> None:
    with pytest.raises(UserError, match=r"runtime\.shards"):
        sharding.spread([given])


@pytest.mark.parametrize(
    "given",
    [
        ["runtime.shard=0/3"],
        ["runtime.shard=4/3"],
        ["runtime.shard=3"],
        ["runtime.shards=4", "runtime.shard=1/3"],
        ["runtime.shards=0"],
        ["runtime.shards=many"],
        ["runtime.shard=1/3", "runs.fresh=true"],
    ],
)
def test_a_share_that_is_none_is_refused(
    given: list[str], tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, *given, f"runs.dir={tmp_path}"]) == 2
    assert "runtime.shard" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("runtime", "made"),
    [
        ({"shards": 3, "shard": None}, "runtime.shard=1/3,2/3,3/3"),
        ({"shards": 3, "shard": "1/3"}, None),
        ({"shards": 1, "shard": None}, None),
        ({"shards": "many", "shard": None}, None),
        (None, None),
    ],
)
def test_shards_that_a_configuration_file_asks_for(runtime: object, made: str | None) -> None:
    assert sharding.of_files({"runtime": runtime}) == made


def test_workers_take_the_chunks_of_their_shard(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from robusteval.engine import runner

    asked = []
    monkeypatch.setattr(runner, "share", lambda config, run, tasks, devices, *_: asked.append(tasks))
    assert run([*command, f"runs.dir={tmp_path}", "runtime.shard=1/2", "runtime.workers=2"]) == 0
    assert [number for number, _ in asked[0]] == [0, 2]


def test_three_shards_in_any_order_make_the_bytes_of_one_process(
    tmp_path: Path, finished: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*command, f"runs.dir={tmp_path}"]
    assert run([*given, "runtime.shard=3/3"]) == 0
    told = capsys.readouterr()
    folder = folder_of(tmp_path)
    assert "2 of 3 chunks are missing: 0, 1" in told.err
    assert told.out.splitlines()[-1] == str(folder)
    assert not (folder / "results.json").exists()
    assert run([*given, "runtime.shard=1/3"]) == 0
    assert run([*given, "runtime.shard=1/3"]) == 0  # again: nothing left of it, and nothing lost
    assert not (folder / "results.json").exists()
    assert [path.name for path in folder.glob("shards/*pgd/*")] == [
        path.name for path in finished.glob("shards/*pgd/*") if not path.name.startswith("00001")
    ]
    assert run([*given, "runtime.shard=2/3"]) == 0
    assert outcome(folder) == outcome(finished)
    assert not list((folder / "locks").glob("[!.]*"))


def test_a_sweep_over_shards_on_the_command_line(tmp_path: Path, finished: Path, command: list[str]) -> None:
    assert run([*command, f"runs.dir={tmp_path}", "runtime.shards=2"]) == 0
    folder = folder_of(tmp_path)
    assert outcome(folder) == outcome(finished)
    seconds = [float(path.read_text()) for path in (folder / "seconds").iterdir()]
    assert len(seconds) == 2
    assert json.loads((folder / "results.json").read_text())["cost"]["seconds"] == pytest.approx(sum(seconds), abs=0.01)
    (folder / "mark").touch()
    assert run([*command, f"runs.dir={tmp_path}", "runtime.shards=2", "runs.fresh=true"]) == 0
    assert not (folder / "mark").exists()  # set aside, but once only
    assert len(list((tmp_path / ".set_aside").iterdir())) == 1
    assert outcome(folder) == outcome(finished)


def test_other_numbers_of_shards_and_a_plain_run_go_on_with_what_is_there(
    tmp_path: Path, finished: Path, command: list[str]
) -> None:
    given = [*command, f"runs.dir={tmp_path}"]
    assert run([*given, "runtime.shard=2/3"]) == 0
    assert run([*given, "runtime.shard=1/2"]) == 0
    assert run([*given, "runtime.shard=5/7"]) == 0  # of three chunks this share has none
    assert outcome(folder_of(tmp_path)) == outcome(finished)


def test_shards_keep_what_the_first_of_them_was_asked_to_keep(
    tmp_path: Path, finished: Path, command: list[str]
) -> None:
    given = [*command, f"runs.dir={tmp_path}"]
    assert run([*given, "runtime.shard=1/2"]) == 0
    assert run([*given, "runtime.shard=2/2", "evidence=none"]) == 0
    assert outcome(folder_of(tmp_path)) == outcome(finished)


def test_a_shard_refuses_its_own_lock_and_a_plain_runs(
    damaged: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("results.json", "samples.parquet"):
        (damaged / name).unlink()
    given, locks = [*command, f"runs.dir={damaged.parent}"], damaged / "locks"
    for held in ("3-of-8", "1-of-1"):
        others(locks / held)
        assert run([*given, "runtime.shard=3/8"]) == 1
        assert "node7, process 42, Slurm job 99" in capsys.readouterr().err
        (locks / held).unlink()
    others(locks / "3-of-8")
    assert run(given) == 1  # a plain run refuses any
    assert not (damaged / "results.json").exists()
    assert not (damaged / "errors").exists()  # to wait is no failure
    others(locks / "final")
    capsys.readouterr()
    assert run([*given, "runtime.shard=2/8"]) == 0
    assert "another task derives the results" in capsys.readouterr().err
    assert not (damaged / "results.json").exists()
    (locks / "final").unlink()
    assert run([*given, "runtime.shard=2/8"]) == 0  # beside 3-of-8, which has nothing left to write
    assert (damaged / "results.json").is_file()


def test_of_many_creators_one_makes_the_file(tmp_path: Path) -> None:
    """The race for run.json: each has computed its own, all begin at once."""
    for turn in range(20):
        gate, made = threading.Barrier(8), []

        def begin(number: int, gate: threading.Barrier = gate, made: list[int] = made, turn: int = turn) -> None:
            gate.wait()
            if atomic.create(tmp_path / f"{turn}.json", str(number).encode()):
                made.append(number)

        threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [str(number) for number in made] == [(tmp_path / f"{turn}.json").read_text()]


@pytest.mark.parametrize("theirs", ["same", "other"])
def test_a_plan_that_appears_while_ours_is_made_is_obeyed(
    theirs: str,
    tmp_path: Path,
    finished: Path,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    create = atomic.create

    def late(path: Path, data: bytes) -> bool:
        facts = json.loads((finished / "run.json").read_text())
        if theirs == "other":
            facts["digests"]["model"] = "0" * 64
        path.write_text(json.dumps(facts))
        return create(path, data)

    monkeypatch.setattr(atomic, "create", late)
    assert run([*command, f"runs.dir={tmp_path}", "runtime.shard=1/1"]) == (0 if theirs == "same" else 2)
    if theirs == "same":
        assert outcome(folder_of(tmp_path)) == outcome(finished)
    else:
        assert "weights changed since this run began" in capsys.readouterr().err
        assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.slow
def test_processes_at_once_killed_and_run_again(tmp_path: Path, finished: Path, command: list[str]) -> None:
    """All begin at the same moment, so they race for run.json; one is killed -9 in its midst, then run again."""
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(tmp_path), "2", *command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["killed"] >= 1
    folders = [folder_of(path) for path in sorted(tmp_path.glob("round-*"))]
    assert len(folders) == told["rounds"]
    for folder in folders:
        assert outcome(folder) == outcome(finished)
        assert not (folder / "errors").exists()


def test_a_damaged_shard_is_set_aside_by_one_of_two(tmp_path: Path, damaged: Path) -> None:
    from robusteval.evidence import shards

    victim = next(damaged.glob("shards/*pgd/*.parquet"))
    shards.set_aside(victim)
    shards.set_aside(victim)  # the other saw it too
    assert (damaged / "damaged" / "01-pgd" / victim.name).is_file()


def test_a_run_folder_that_vanished_does_not_come_back_without_its_plan(damaged: Path) -> None:
    from robusteval.evidence import shards

    run_folder = RunFolder(damaged)
    target = run_folder.shards("pgd")
    table = shards.read(next(target.folder.glob("*.parquet")))
    shutil.rmtree(damaged)
    with pytest.raises(RobustevalError, match="vanished while it was being written to"):
        target.write(0, table)
    assert not damaged.exists()


def test_the_heartbeat_of_a_vanished_folder_brings_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    with lock.hold(tmp_path / "run" / "locks", "1-of-1"):
        shutil.rmtree(tmp_path / "run")
        time.sleep(0.1)
    assert not (tmp_path / "run").exists()
