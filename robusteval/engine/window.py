"""What several iterations in a row came to, judged afterwards on the host.

Neither verdicts nor verification ever reach an attack, so what it would have done does not depend on them. That is why
they can wait: what a job did after its end is left out of account, and a claim that the verifier does not confirm costs
nothing but a second look at the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robusteval.engine.jobs import Point, outranks


@dataclass(frozen=True, kw_only=True)
class Window:
    """Answers [answers, slots] in order, and how things stood before them [slots].

    ``missed``, ``inside`` (the threat; the box alone where the nearest is kept), ``rank`` (cross-entropy, or distance),
    ``finite`` (logits) and ``unusable`` (a gradient with entries that are not finite) tell of each answer. ``done``
    [iterations, slots] says which jobs ended by themselves, ``answers`` how many each iteration got. ``occupied`` are
    the slots that hold a job; ``broken`` and ``kept`` the verdict and the rank of each one's sample.
    """

    missed: np.ndarray
    inside: np.ndarray
    rank: np.ndarray
    finite: np.ndarray
    unusable: np.ndarray
    done: np.ndarray
    answers: Sequence[int]
    occupied: np.ndarray
    broken: np.ndarray
    kept: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of each slot.

    ``counted`` [answers, slots] are the answers that the job was still there for, ``claimed`` those that the verifier
    has to see, ``held`` the claims that count. ``last`` [slots] is the answer whose point is kept (-1: none is),
    ``broken`` the verdict. ``leaving`` are the jobs that ended, ``settled`` those of them that need no other.
    """

    counted: np.ndarray
    claimed: np.ndarray
    held: np.ndarray
    last: np.ndarray
    broken: np.ndarray
    leaving: np.ndarray
    settled: np.ndarray


def judge(window: Window, refuted: np.ndarray, point: Point, radius: float) -> Outcome:
    """Return the outcome if the verifier confirms every claim but those ``refuted`` [answers, slots].

    Answer by answer, as the host path sees them. ``radius`` says which of the nearest points break a sample.
    """
    live, broken, kept = window.occupied.copy(), window.broken.copy(), window.kept.copy()
    counted, claimed, held = (np.zeros_like(window.missed) for _ in range(3))
    last = np.full(len(live), -1)
    settled = np.zeros_like(live)
    at = 0
    for done, answers in zip(window.done, window.answers, strict=True):
        for number in range(at, at + answers):
            missed, rank = window.missed[number], window.rank[number]
            if point == "nearest":
                better = missed & (rank < kept)
            else:
                better = outranks(missed, broken, rank > kept, point)
            chosen = better & window.inside[number] & live
            counted[number] = live
            claimed[number] = chosen & missed
            held[number] = claimed[number] & ~refuted[number]
            taken = held[number] | (chosen & ~missed)
            last[taken] = number
            kept = np.where(taken, rank, kept)
            broken |= held[number] & (rank <= radius) if point == "nearest" else held[number]
        at += answers
        if point == "first_success":
            settled |= live & broken
        live &= ~(done | settled)
    return Outcome(
        counted=counted,
        claimed=claimed,
        held=held,
        last=last,
        broken=broken,
        leaving=window.occupied & ~live,
        settled=settled,
    )
