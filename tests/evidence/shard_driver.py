"""Runs the shards of an evaluation as processes at once, kills some, runs them again; a program for test_shards.py.

Prints how many rounds there were, and kills.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from forks import prepare, start, wait

SHARDS = 3


def main(base: Path, rounds: int, overrides: list[str]) -> None:
    prepare()
    moments, killed, number = random.Random(5), 0, 0
    while number < rounds or not killed:
        number += 1
        log = base / f"log-{number}"
        shares = [
            [*overrides, f"runs.dir={base / f'round-{number}'}", f"runtime.shard={i}/{SHARDS}"]
            for i in range(1, SHARDS + 1)
        ]
        children = [start(arguments, log) for arguments in shares]
        time.sleep(moments.uniform(0.2, 1.0))
        os.kill(children[number % SHARDS], signal.SIGKILL)
        codes = [wait(child) for child in children]
        killed += codes.count(-signal.SIGKILL)
        again = [arguments for arguments, code in zip(shares, codes, strict=True) if code == -signal.SIGKILL]
        if set(codes) - {0, -signal.SIGKILL} or any(wait(start(arguments, log)) for arguments in again):
            raise SystemExit(f"round {number}: codes {codes}; {log.read_text()}")
    print(json.dumps({"rounds": number, "killed": killed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
