"""A process of ``hydra/launcher=local``: reads one evaluation from standard input, runs it, and ends with its code.

The other end of standard input stays open as long as the launcher lives: where it closes, this process ends too.
"""

import json
import os
import sys
import threading

from robusteval.launch.evaluation import evaluate_alone


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)  # what is finished is on the disk


if __name__ == "__main__":
    line = b""
    while not line.endswith(b"\n"):  # by the descriptor alone: a buffer would keep what the thread waits for
        if not (more := os.read(0, 1 << 16)):
            sys.exit(1)
        line += more
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(evaluate_alone(json.loads(line)))
