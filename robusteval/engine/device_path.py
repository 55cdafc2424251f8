"""The path for a GPU: several iterations in a row without a look at the device, and batches of few sizes.

A GPU waits for the host whenever that wants to know a number, and an iteration of the host path wants to know several.
Here iterations run in windows. In a window every slot goes on, also one whose sample is settled by then, and what each
answer came to is noted on the device. At its end the host reads the notes at once, judges them answer by answer as the
host path would have, lets the verifier see the claims, and writes the results. So idle iterations are not counted and
influence nothing, and the numbers are those of the host path, also where the verifier refutes a claim.

Slots without a job stay in the batch, which has one of few sizes: kernels are chosen, memory is laid out, and an
iteration is recorded as a CUDA graph once for each.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from robusteval.attacks.asking import unasked
from robusteval.attacks.base import Query, State
from robusteval.engine.board import Board
from robusteval.engine.iteration import Note, Rules, iterate
from robusteval.engine.jobs import Chunk, Point, job_of
from robusteval.engine.passes import QUANTUM, Passes
from robusteval.engine.queue import Queue, Ticket
from robusteval.engine.recording import Recorder
from robusteval.engine.stages import Stage
from robusteval.engine.transfer import to_device, to_host
from robusteval.engine.window import Outcome, Window, judge

# Iterations between two looks. A slot idles 3.5 iterations on average once its job has ended, 3.5 % of a job of 100,
# and the window's notes hold so many images a slot; by then a look is an eighth of what it was. On an H100 APGD took as
# long with 16 on networks from 0.1 to 0.5 million weights, and a sixth longer with 32.
EVERY = 8
# The window doubles while fewer than this share of the jobs end in it, and is halved where more do: FGSM ends at once.
_FEW = 1 / 8


def run(
    stage: Stage,
    chunk: Chunk,
    board: Board,
    queue: Queue,
    *,
    oracle: Passes,
    verifier: Passes,
    slots: int,
    seed: int,
    point: Point,
    tick: Callable[[int], None],
    recorder: Recorder | None = None,
) -> None:
    """Attack the samples of ``queue`` and write what came of it onto ``board``; iterations recorded by ``recorder``."""
    attack, device = stage.attack, chunk.images.device
    rules = Rules(oracle=oracle, verifier=verifier, threat=stage.threat, point=point)
    begun = queue.take(slots)
    if not begun:
        return
    state = attack.start(job_of(stage, chunk, queue, begun, seed))
    tickets = _seated(state, list(begun), slots, device)
    iterations = 1
    while occupied := [ticket for ticket in tickets if ticket is not None]:
        # A slot without a job stands in for the sample of another one, and writes nowhere.
        positions = np.array([queue.position(ticket or occupied[0]) for ticket in tickets])
        outcome = _window(stage, state, chunk, board, tickets, positions, rules, iterations, recorder)
        leaving = [(slot, ticket) for slot, ticket in enumerate(tickets) if ticket and outcome.leaving[slot]]
        for slot, ticket in leaving:
            tickets[slot] = None
            if not outcome.settled[slot]:
                queue.again(ticket)
        tick(sum(bool(outcome.settled[slot]) or ticket.rank + 1 == queue.jobs for slot, ticket in leaving))
        free = [slot for slot, ticket in enumerate(tickets) if ticket is None]
        fresh = queue.take(slots - (len(tickets) - len(free)))
        if fresh:
            at = to_device(np.array(free[: len(fresh)]), device)
            state.fill(at, attack.start(job_of(stage, chunk, queue, fresh, seed)))
            for slot, ticket in zip(free, fresh, strict=False):
                tickets[slot] = ticket
        tickets = _seated(state, tickets, slots, device)
        few = len(leaving) < _FEW * len(occupied)
        iterations = min(2 * iterations, EVERY) if few else max(iterations // 2, 1)


def bucket(jobs: int, slots: int) -> int:
    """Return the size of the batch for so many jobs: ``slots``, or a half, a quarter, ... in multiples of 16."""
    size = -(-slots // QUANTUM) * QUANTUM
    while (half := -(-size // (2 * QUANTUM)) * QUANTUM) >= jobs and half < size:
        size = half
    return size


def _seated(state: State, tickets: list[Ticket | None], slots: int, device: torch.device) -> list[Ticket | None]:
    """Bring the slots to the size for their jobs; spare ones begin as a copy of the first."""
    jobs = [slot for slot, ticket in enumerate(tickets) if ticket is not None]
    if not jobs or (size := bucket(len(jobs), slots)) == len(tickets):
        return tickets
    spare = size - len(jobs)
    state.keep(to_device(np.array(jobs + jobs[:1] * spare), device))
    return [*(tickets[slot] for slot in jobs), *([None] * spare)]


def _window(
    stage: Stage,
    state: State,
    chunk: Chunk,
    board: Board,
    tickets: Sequence[Ticket | None],
    positions: np.ndarray,
    rules: Rules,
    iterations: int,
    recorder: Recorder | None,
) -> Outcome:
    """Run so many iterations, and write what came of them."""
    device = chunk.images.device
    at = to_device(positions, device)
    x, y = chunk.images[at], chunk.labels[at]
    notes: list[Note] = []
    done, answers = [], []
    with unasked():
        for _ in range(iterations):
            ended, several = iterate(stage.attack, state, x, y, rules, recorder, stage.name)
            done.append(ended)
            answers.append(len(several))
            notes += several
    kept = board.loss if board.distance is None else board.distance
    marks = [mark for note in notes for mark in note.marks]
    read = to_host(torch.stack([*marks, *(end.double() for end in done), board.broken[at].double(), kept[at].double()]))
    per_answer = read[: len(marks)].reshape(len(notes), 5, -1)
    missed, inside, finite, unusable = (per_answer[:, row] > 0 for row in (0, 1, 3, 4))
    window = Window(
        missed=missed,
        inside=inside,
        rank=per_answer[:, 2],
        finite=finite,
        unusable=unusable,
        done=read[len(marks) : -2] > 0,
        answers=answers,
        occupied=np.array([ticket is not None for ticket in tickets]),
        broken=read[-2] > 0,
        kept=read[-1],
    )
    outcome, refuted = _verified(window, notes, y, rules)
    board.rejected += int((outcome.claimed & refuted).sum())
    _write(board, window, outcome, notes, positions, rules)
    if board.survey is not None:
        for number, note in enumerate(notes):
            slots = to_device(outcome.counted[number].nonzero()[0], device)
            query = Query(points=note.points[slots], column=_present(note.column)[slots])
            missed, inside = (note.marks[row][slots] > 0 for row in (0, 1))
            board.survey.note(at[slots], query, note.logits[slots], y[slots], x[slots], missed, inside)
    return outcome


def _verified(window: Window, notes: Sequence[Note], y: Tensor, rules: Rules) -> tuple[Outcome, np.ndarray]:
    """Return the outcome with every claim in it verified, and which of all claims [answers, slots] were refuted.

    Judged first as if all claims held, which they nearly always do. One that does not leaves its slot to others, which
    are verified in turn. What was verified and is no claim after all is not counted.
    """
    refuted, asked = np.zeros_like(window.missed), np.zeros_like(window.missed)
    while True:
        outcome = judge(window, refuted, rules.point, rules.threat.radius)
        steps, slots = (outcome.claimed & ~asked).nonzero()
        if not len(steps) or not rules.verifies:
            return outcome, refuted
        at = to_device(slots, y.device)
        again = rules.verifier.logits(_picked([note.points for note in notes], steps, at))
        counts = np.bincount(steps, minlength=len(notes)).tolist()
        for note, part, logits in zip(notes, at.split(counts), again.split(counts), strict=True):
            note.logits[part] = logits
        refuted[steps, slots] = to_host(~rules.threat.broken(again, y[at]))
        asked[steps, slots] = True


def _write(
    board: Board, window: Window, outcome: Outcome, notes: Sequence[Note], positions: np.ndarray, rules: Rules
) -> None:
    """Write costs, alarms and the points that are kept."""
    device = board.broken.device
    costs = np.array([[note.forward, note.backward] for note in notes]).T @ outcome.counted
    if rules.verifies:
        costs[0] += rules.verifier.draws * outcome.claimed.sum(0)
    with_job = window.occupied.nonzero()[0]
    forward, backward, at = to_device(np.stack([*costs[:, with_job], positions[with_job]]), device).unbind()
    board.count(at, forward=forward, backward=backward)
    alarming = ((outcome.counted & window.unusable) | (outcome.held & ~window.finite)).any(0)
    if alarming.any():
        board.nonfinite[to_device(positions[alarming], device)] = True
    kept = (outcome.last >= 0).nonzero()[0]
    if not len(kept):
        return
    kept = kept[outcome.last[kept].argsort(kind="stable")]
    steps = outcome.last[kept]
    slots, at, broken = to_device(np.stack([kept, positions[kept], outcome.broken[kept]]), device).unbind()
    board.keep(
        at,
        _picked([note.points for note in notes], steps, slots),
        _picked([note.logits for note in notes], steps, slots),
        _picked([note.loss for note in notes], steps, slots),
        None if notes[0].parameter is None else _picked([_present(note.parameter) for note in notes], steps, slots),
        success=broken > 0,
        distance=None if board.distance is None else _picked([note.marks[2] for note in notes], steps, slots),
    )


def _picked(tensors: Sequence[Tensor], steps: np.ndarray, slots: Tensor) -> Tensor:
    """Return row ``slots[i]`` of ``tensors[steps[i]]`` for every i; ``steps`` ascend."""
    counts = np.bincount(steps, minlength=len(tensors)).tolist()
    return torch.cat([tensor[part] for tensor, part in zip(tensors, slots.split(counts), strict=True) if len(part)])


def _present(values: Tensor | None) -> Tensor:
    """Return what a query of a survey, or of a one-parameter attack, names every time."""
    if values is None:
        raise LookupError("the query of a survey names its column, and one that names a parameter does so every time")
    return values
