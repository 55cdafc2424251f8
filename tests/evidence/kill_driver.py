"""Kills evaluations at random moments and lets them finish; run as a program by test_kill.py.

Prints one JSON object: how many kills hit a running evaluation and in which stages, how many finished runs equal the
undisturbed one, and how many shards that a kill had left were lost or computed again.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from forks import prepare, start, wait


def files(runs: Path) -> dict[str, str]:
    """Return what must not differ: samples, and results without cost, provenance and sinks."""
    (folder,) = (path for path in runs.iterdir() if (path / "run.json").is_file())
    results = json.loads((folder / "results.json").read_text())
    kept = {key: value for key, value in results.items() if key not in ("provenance", "sinks")}
    kept["cost"] = {key: value for key, value in kept["cost"].items() if key.endswith("_passes")}
    names = sorted(
        str(path.relative_to(folder)) for part in ("shards", "adversarials") for path in (folder / part).rglob("*.*")
    )
    return {
        "samples": (folder / "samples.parquet").read_bytes().hex(),
        "results": json.dumps(kept),
        "names": json.dumps(names),
    }


def shards(runs: Path) -> dict[Path, tuple[int, int]]:
    """Return inode and time of each shard: it is another file once it is computed again."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in runs.glob("*/shards/*/*.parquet")}


def at_work_on(runs: Path) -> str:
    """Return the stage that was in the making when a run was killed: the first that its last chunk lacks."""
    planned = [json.loads(path.read_text())["plan"]["stages"] for path in runs.glob("*/run.json")]
    if not planned:
        return "before the plan"
    there = {(path.parent.name.partition("-")[2], path.name[:5]) for path in shards(runs)}
    last = max((chunk for _, chunk in there), default="")
    return next((stage for stage in planned[0] if (stage, last) not in there), "between")


def reach(stage: str, runs: Path, seconds: float) -> None:
    """Wait until a run is at work on a stage, but no longer than so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and at_work_on(runs) != stage:
        time.sleep(0.001)


def main(base: Path, kills: int, seed: int, overrides: list[str]) -> None:
    prepare()
    moments, log = random.Random(seed), base / "log"
    reference = base / "reference"
    length = 0.0
    for folder in (base / "warm-up", reference):  # the first pays for cold caches, which no later run does
        begun = time.monotonic()
        if (code := wait(start([*overrides, f"runs.dir={folder}"], log))) != 0:
            raise SystemExit(f"the undisturbed run ended with {code}: {log.read_text()}")
        length = time.monotonic() - begun
    wanted = files(reference)
    (plan,) = reference.glob("*/run.json")
    planned = json.loads(plan.read_text())["plan"]["stages"]
    hits, equal, rounds, lost = 0, 0, 0, 0
    stages: Counter[str] = Counter()
    while hits < kills:
        rounds += 1
        runs = base / f"round-{rounds}"
        arguments = [*overrides, f"runs.dir={runs}"]
        kept: dict[Path, tuple[int, int]] = {}
        # Several kills in a row, so that resumed runs are killed too, at every stage of their lives.
        for _ in range(moments.randint(2, 7)):
            child = start(arguments, log)
            if moments.random() < 0.5:
                time.sleep(moments.uniform(0, length))
            else:  # short stages too
                reach(moments.choice(planned), runs, length)
            os.kill(child, signal.SIGKILL)
            hit = wait(child) == -signal.SIGKILL
            hits += hit
            stages[at_work_on(runs)] += hit
            kept |= {path: file for path, file in shards(runs).items() if path not in kept}
            if not hit:  # it had ended: nothing is left to be killed
                break
        if (code := wait(start(arguments, log))) != 0:
            raise SystemExit(f"round {rounds}: the rerun ended with {code}: {log.read_text()}")
        equal += files(runs) == wanted
        now = shards(runs)
        lost += sum(now.get(path) != file for path, file in kept.items())
        shutil.rmtree(runs)
    told = {"kills": hits, "rounds": rounds, "equal": equal, "lost": lost, "stages": stages, "seconds": length}
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
