"""One evaluation of a sweep as plain values, to be run by whichever process it reaches. Imports no torch by itself."""

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robusteval.errors import Interrupted, RobustevalError, told

if TYPE_CHECKING:  # it imports torch
    from robusteval.config import Config


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was composed and validated before the sweep began, so that no later edit of a file changes what runs.

    ``mapping`` is the resolved configuration, ``overrides`` what the user wrote for it.
    """

    mapping: Mapping[str, Any]
    overrides: Sequence[str]

    @cached_property
    def config(self) -> "Config":
        from robusteval.config import build

        return build(self.mapping)

    @cached_property
    def run(self) -> Path:
        """The folder of its run."""
        return Path(self.config.runs.dir) / self.config.folder_name

    @property
    def task(self) -> str:
        """Its share of the run, such as 3-of-8; 1-of-1 is all of it."""
        return self.config.runtime.task

    def plain(self) -> dict[str, Any]:
        """Return it without what can be built again, as values that JSON knows."""
        return {"mapping": dict(self.mapping), "overrides": list(self.overrides)}

    def __str__(self) -> str:
        own = [text for text in self.overrides if not text.lstrip("+").startswith(("hydra.", "hydra/"))]
        return " ".join(own) or "the defaults"


def evaluate(plain: Mapping[str, Any]) -> int:
    """Run one evaluation, say what went wrong in a sentence, and return the exit code. A bug keeps its traceback."""
    from robusteval.config import build
    from robusteval.engine import runner

    try:
        print(runner.evaluate(build(plain["mapping"]), command=plain["overrides"], in_sweep=True), flush=True)
    except (RobustevalError, OSError, MemoryError) as error:
        if os.environ.get("ROBUSTEVAL_DEBUG"):
            raise
        sentence, code = told(error)
        print(f"robusteval: {sentence}", file=sys.stderr, flush=True)
        return code
    return 0


def evaluate_alone(plain: Mapping[str, Any]) -> int:
    """Run the one evaluation of a process, and return the exit code whatever ended it but a signal that kills."""
    try:
        return evaluate(plain)
    except (Interrupted, KeyboardInterrupt) as interrupted:
        why = str(interrupted) or "SIGINT"
        print(f"robusteval: interrupted ({why}); run the same command to go on", file=sys.stderr, flush=True)
        return Interrupted.exit_code
    except Exception:
        traceback.print_exc()
        return RobustevalError.exit_code


def together(codes: Sequence[int]) -> int:
    """Return the exit code of a sweep: 0 if all are done, 75 if any was interrupted, else the largest."""
    return Interrupted.exit_code if Interrupted.exit_code in codes else max(codes, default=0)
