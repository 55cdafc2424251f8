"""One worker: a process that computes chunks of a run for the process that started it, and ends with it.

It holds no lock of its own. Its parent does, and is watched from here: a worker outlives a killed parent by moments, in
which it may at most complete a file that it has begun. Whoever takes the run over meanwhile comes to no harm by that:
a shard is whole or absent, and the same chunk gives the same bytes, so the same name (where a model is not that
deterministic, the second shard of a chunk is set aside by the next who looks).
"""

import contextlib
import multiprocessing
import os
import threading
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch

from robusteval.config import build
from robusteval.engine import plan
from robusteval.engine.careful import Careful
from robusteval.engine.memory import remembered
from robusteval.engine.session import load, opened
from robusteval.errors import RobustevalError, UserError
from robusteval.evidence.folder import RunFolder

Task = tuple[int, Mapping[str, Path]]
"""A chunk, and the shards that it has (stage -> path)."""

Message = int | Literal["ready"] | Exception
"""What a worker says: samples settled since it last spoke, that it waits for a chunk, or why it cannot go on."""


def main(parent: Connection, plain: Mapping[str, Any], path: Path, device: str) -> None:
    """Compute the chunks that come over ``parent`` in the run at ``path``, until it is closed.

    ``plain`` is the configuration as plain values: the model and the data are loaded here again, since neither need
    survive the way between two processes.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _serve(parent, plain, RunFolder(path), torch.device(device))
    except EOFError:  # nothing more to do
        return
    # What the command line answers in a sentence; anything else is a bug, whose traceback should be seen.
    except (RobustevalError, OSError, MemoryError) as error:
        if os.environ.get("ROBUSTEVAL_DEBUG"):
            traceback.print_exc()
        with contextlib.suppress(OSError):  # it may be the parent that is gone
            parent.send(error)


def _serve(parent: Connection, plain: Mapping[str, Any], run: RunFolder, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what a network makes on "cuda" is to be beside its weights
    config = build(plain)
    classifier, dataset = load(config)
    if (name := plan.differs(run, plan.facts_of(config, classifier, dataset))) is not None:
        raise UserError(
            f"{run.path}: a worker was given other {name} than the run began with; an entry or a file must give "
            "the same each time (torch.manual_seed before weights are drawn), or use runtime.workers=1"
        )

    def tick(n: int) -> None:
        if n:
            parent.send(n)

    # One thread: workers share the processors among themselves, and threads of several would wait for each other.
    with opened(config, classifier, dataset, device, config.runtime.threads or 1, remembered(run)) as session:
        work = Careful(session, run, tick)
        while True:
            parent.send("ready")
            number, done = parent.recv()
            work.compute(number, done)


def _end_with_parent() -> None:
    """End this process at once when its parent is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
