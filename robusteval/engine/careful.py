"""The work of a session, chunk by chunk, with fewer slots whenever memory runs out."""

from collections.abc import Callable, Mapping
from pathlib import Path

from robusteval.engine import memory
from robusteval.engine.memory import OutOfMemory, ran_out
from robusteval.engine.session import Session
from robusteval.engine.units import Work
from robusteval.evidence.folder import RunFolder


class Careful:
    """Computes the chunks of a run. What a chunk had ticked before it had to be begun again is taken back."""

    def __init__(self, session: Session, run: RunFolder, tick: Callable[[int], None]) -> None:
        self._run, self._tick, self._slots = run, tick, session.slots
        self._ticked = 0
        self.work: Work = session.work(run, self._count)

    def compute(self, number: int, done: Mapping[str, Path]) -> None:
        """Compute what a chunk lacks. Raises OutOfMemory where even 16 slots are too many."""
        self._ticked = 0
        memory.within(lambda slots: self._attempt(number, done, slots), self._slots, self._run)

    def _attempt(self, number: int, done: Mapping[str, Path], slots: int) -> None:
        if slots != self._slots:
            self._slots, self.work = slots, self.work.with_slots(slots)
            if self._ticked:
                self._tick(-self._ticked)
                self._ticked = 0
            there = {stage: self.work.finished(stage) for stage in self._run.stages}  # some, before memory ran out
            done = {stage: found[number] for stage, found in there.items() if number in found}
        try:
            self.work.compute(number, done)
        except (OutOfMemory, RuntimeError) as error:
            if (recorder := self.work.searcher.recorder) is not None and ran_out(error):
                recorder.forget()  # before memory is given back
            raise

    def _count(self, n: int) -> None:
        self._ticked += n
        self._tick(n)
