"""Runs that may end before all their images are done: which of their chunks count.

Chunks are in random order, and are looked at one after the other, whoever computed them and when: the first whose
interval satisfies a rule is the last that counts. So the decision is a function of the plan and the evidence. What
workers have computed beyond it is left out of account.
"""

from pathlib import Path
from typing import Any

import numpy as np

from robusteval.evidence import shards
from robusteval.evidence.folder import RunFolder
from robusteval.metrics.sequence import bounds, reached


class Decision:
    """Whether a run has come to its end, remembering the chunks that it has seen."""

    def __init__(self, run: RunFolder) -> None:
        self._run, plan = run, run.run["plan"]
        self._rules, self._n, self._chunks = plan.get("stopping"), plan["n"], plan["chunks"]
        self._seen = self._robust = self._images = 0
        self.because: str | None = None

    def counted(self) -> int | None:
        """Return how many chunks count; None while that depends on chunks that are not complete."""
        if self._rules is None:
            return self._chunks
        while self.because is None and self._seen < self._chunks:
            flags = self._flags(self._seen)
            if flags is None:
                return None
            self._seen += 1
            self._robust += int(np.count_nonzero(flags))
            self._images += len(flags)
            self.because = reached(self._rules, *bounds(self._robust, self._images, self._n))
        return self._seen

    def _flags(self, chunk: int) -> np.ndarray | None:
        """Return which images of a chunk are robust; None while a stage of it is missing."""
        clean, *stages = (self._run.shards(stage).of(chunk) for stage in self._run.stages)
        if clean is None or None in stages:
            return None
        table = shards.read(clean)
        robust = table["clean_correct"].to_numpy(zero_copy_only=False).copy()
        ids = table["id"].to_numpy()
        for path in stages:
            if path is not None:
                part = shards.read(path)
                robust &= ~np.isin(ids, part.filter(part["broken"])["id"].to_numpy())
        return robust


def counted(run: RunFolder) -> int:
    """Return how many chunks of a run count: all, where no rule ends it sooner or the chunks to tell are missing."""
    found = Decision(run).counted()
    return run.run["plan"]["chunks"] if found is None else found


def evidence(run: RunFolder, stage: str, many: int | None = None) -> list[Path]:
    """Return the intact shards of a stage that count, in order; ``many`` saves asking again how many do."""
    most = counted(run) if many is None else many
    return [path for chunk, path in sorted(run.shards(stage).inspect()[0].items()) if chunk < most]


def section(run: RunFolder, results: dict[str, Any]) -> dict[str, Any]:
    """Return {"stopped": ...} for results, and give clean and robust accuracy their intervals; {} without a rule.

    They hold at the time that the evidence chose to stop, which Wilson's would not.
    """
    rules = run.run["plan"].get("stopping")
    if rules is None:
        return {}
    planned = run.run["plan"]["n"]
    for rate in (results["clean"]["accuracy"], results["robust"]["accuracy"], *results["robust"].get("curve", ())):
        rate["low"], rate["high"] = bounds(rate["correct"], rate["n"], planned)
    robust = results["robust"]["accuracy"]
    return {
        "stopped": {
            "rule": rules,
            "reached": reached(rules, robust["low"], robust["high"]),
            "evaluated": robust["n"],
            "planned": planned,
            "interval": "holds at any time (Waudby-Smith & Ramdas 2020)",
        }
    }
