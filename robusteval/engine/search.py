"""One stage of an attack on one chunk: slots, claims, and the best point of every sample.

An attack proposes points; only the engine claims. A claim (mispredicted, and inside the final threat) counts once the
verifier has predicted the point again with the model as given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robusteval import randomness
from robusteval.attacks import losses
from robusteval.attacks.base import Answer, Attack, Job, Query, State, WholeBatch
from robusteval.engine import device_path, whole
from robusteval.engine.board import Board
from robusteval.engine.jobs import Chunk, Point, confined, job_of, outranks
from robusteval.engine.passes import Chance, Passes
from robusteval.engine.queue import Queue
from robusteval.engine.recording import Recorder
from robusteval.engine.stages import Precision, Stage
from robusteval.threat import ThreatModel

Stop = Literal["first", "never"]
Path = Literal["host", "device"]


def point_of(attack: Attack, stop: Stop) -> Point:
    """Return which point of a sample is kept: as ``stop`` says, but a minimum-norm attack's nearest in any case."""
    if attack.keeps == "nearest":
        return "nearest"
    return "max_loss" if stop == "never" or attack.columns() is not None else "first_success"


@dataclass(frozen=True, kw_only=True)
class Searcher:
    """What every stage of an evaluation shares.

    ``oracles`` answer the attack in the stage's precision, ``verifier`` is the model as given; both draw from
    ``chance`` where the model is randomised. ``tick`` is called between iterations with the number of samples settled
    since the last call, and may raise to interrupt. ``path`` says how a stage runs, and changes no result: ``host``
    looks at the verdicts after every iteration, ``device`` after several, so that a GPU need not wait; there
    ``recorder`` records iterations. A randomised network, which draws numbers pass by pass, is searched on the host
    path in any case.
    """

    oracles: Mapping[Precision, Passes]
    verifier: Passes
    seed: int
    slots: int
    stop: Stop
    tick: Callable[[int], None]
    chance: Chance | None = None
    path: Path = "host"
    recorder: Recorder | None = None

    def begin(self, stage: str, chunk: int) -> None:
        """Say which unit of work comes next: what a randomised model draws depends on it."""
        if self.chance is not None:
            self.chance.begin(f"{stage} {chunk}")

    def run(self, stage: Stage, chunk: Chunk, order: Sequence[int]) -> Board:
        """Attack the samples at positions ``order`` of the chunk, in that order, and return what came of all."""
        attack = stage.attack
        columns = attack.columns()
        point = point_of(attack, self.stop)
        board = Board.of(
            chunk.images,
            chunk.labels,
            chunk.logits,
            stage.threat,
            columns=0 if columns is None else len(columns),
            nearest=point == "nearest",
        )
        if isinstance(attack, WholeBatch):
            self._whole(attack, stage, chunk, board, order, point)
            return board
        # A survey answers for every parameter, so it is asked of the model as given and stops at nothing.
        oracle = self.oracles[stage.precision] if columns is None else self.verifier
        queue = Queue(order, attack.restarts() * attack.targets(chunk.logits.shape[1]))
        if self.path == "device" and self.chance is None:
            device_path.run(
                stage,
                chunk,
                board,
                queue,
                oracle=oracle,
                verifier=self.verifier,
                slots=self.slots,
                seed=self.seed,
                point=point,
                tick=self.tick,
                recorder=self.recorder,
            )
        else:
            self._on_host(stage, chunk, board, queue, oracle, point)
        if oracle is not self.verifier and point != "nearest":
            self._confirm(stage.threat, chunk, board)
        return board

    def _on_host(self, stage: Stage, chunk: Chunk, board: Board, queue: Queue, oracle: Passes, point: Point) -> None:
        attack = stage.attack
        tickets = queue.take(self.slots)
        if not tickets:
            return
        job = job_of(stage, chunk, queue, tickets, self.seed)
        state, slots, positions = attack.start(job), _slots(job), None
        while tickets:
            if positions is None:
                positions = torch.tensor([queue.position(ticket) for ticket in tickets], device=chunk.images.device)
            done = self._iterate(stage, state, slots, board, positions, oracle, point)
            settled = board.broken.index_select(0, positions) & (point == "first_success")
            leaving = (done | settled).nonzero()[:, 0].tolist()
            if not leaving:
                self.tick(0)
                continue
            is_settled, positions = settled.tolist(), None
            for slot in leaving:
                if not is_settled[slot]:
                    queue.again(tickets[slot])
            self.tick(sum(is_settled[s] or tickets[s].rank + 1 == queue.jobs for s in leaving))
            fresh = queue.take(len(leaving))
            if fresh:
                job = job_of(stage, chunk, queue, fresh, self.seed)
                taken = torch.tensor(leaving[: len(fresh)], device=chunk.images.device)
                state.fill(taken, attack.start(job))
                slots.fill(taken, _slots(job))
                for slot, ticket in zip(leaving, fresh, strict=False):
                    tickets[slot] = ticket
            if empty := set(leaving[len(fresh) :]):
                kept = [slot for slot in range(len(tickets)) if slot not in empty]
                remaining = torch.tensor(kept, dtype=torch.long, device=chunk.images.device)
                state.keep(remaining)
                slots.keep(remaining)
                tickets = [tickets[slot] for slot in kept]

    def _whole(
        self, attack: WholeBatch, stage: Stage, chunk: Chunk, board: Board, order: Sequence[int], point: Point
    ) -> None:
        """Let another library's attack run on all samples at once; its points are claims like any others."""
        if not order:
            return
        at = torch.tensor(sorted(order), device=chunk.images.device)
        x = chunk.images[at]
        number = int(randomness.generator(self.seed, int(chunk.ids[0]), stage.draws).integers(2**31))
        proposed = whole.propose(
            attack, self.verifier.module, x, chunk.labels[at], stage.threat, seed=number, beat=lambda: self.tick(0)
        )
        board.count(at, forward=proposed.forward, backward=proposed.backward)
        board.outside = proposed.outside
        answer = Answer(logits=self.verifier.logits(proposed.points))
        lo, hi = stage.threat.bounds(x)
        slots = State(x=x, y=chunk.labels[at], lo=lo, hi=hi)
        self._learn(stage.threat, Query(points=proposed.points), answer, slots, board, at, point, self.verifier)
        self.tick(len(order))

    def _confirm(self, threat: ThreatModel, chunk: Chunk, board: Board) -> None:
        """Let the verifier predict the kept points that no claim made it see; one that it misses is broken."""
        unseen = (board.moved & ~board.broken).nonzero()[:, 0]
        if not len(unseen):
            return
        logits = self.verifier.logits(board.point[unseen])
        board.count(unseen, forward=self.verifier.draws, backward=0)
        board.logits[unseen] = logits
        board.nonfinite[unseen] |= ~logits.isfinite().all(1)
        board.broken[unseen] = threat.broken(logits, chunk.labels[unseen])

    def _iterate(
        self, stage: Stage, state: State, slots: State, board: Board, positions: Tensor, oracle: Passes, point: Point
    ) -> Tensor:
        steps = stage.attack.iterate(state)
        query = next(steps)
        while True:
            answer = oracle.ask(query)
            self._learn(stage.threat, query, answer, slots, board, positions, point, oracle)
            if answer.gradient is not None:
                answer = _finite(confined(answer, stage.threat), board, positions)
            try:
                query = steps.send(answer)
            except StopIteration as end:
                return end.value

    def _learn(
        self,
        threat: ThreatModel,
        query: Query,
        answer: Answer,
        slots: State,
        board: Board,
        positions: Tensor,
        point: Point,
        oracle: Passes,
    ) -> None:
        """Count the passes, claim what is broken, and keep each sample's best point."""
        labels = slots.y
        forward, backward = oracle.cost(query, answer)
        board.count(positions, forward=forward, backward=backward)
        loss = losses.cross_entropy(answer.logits, labels).nan_to_num(nan=torch.inf)
        missed = threat.broken(answer.logits, labels)
        if query.column is not None and board.survey is not None:
            inside = threat.within(query.points, slots.x, slots.lo, slots.hi)
            board.survey.note(positions, query, answer.logits, labels, slots.x, missed, inside)
        if board.distance is not None:
            chosen = _nearer(threat, query.points, missed, slots.x, board.distance.index_select(0, positions))
        else:
            chosen = _better(threat, query.points, missed, loss, slots, board, positions, point)
        if not len(chosen):
            return
        hits = missed.index_select(0, chosen)
        claims, others = chosen[hits], chosen[~hits]
        logits = answer.logits
        if len(claims) and oracle is not self.verifier:
            again = self.verifier.logits(query.points.index_select(0, claims))
            board.count(positions[claims], forward=self.verifier.draws, backward=0)
            held = threat.broken(again, labels[claims])
            board.rejected += int((~held).sum())
            claims, logits = claims[held], logits.index_copy(0, claims, again)
        for rows, success in ((claims, True), (others, False)):
            if not len(rows):
                continue
            parameter = None if query.parameter is None else query.parameter[rows]
            points = query.points.index_select(0, rows)
            at, said, worth = (each.index_select(0, rows) for each in (positions, logits, loss))
            kept = (at, points, said, worth, parameter)
            if board.distance is None:
                board.keep(*kept, success=success)
            else:
                distance = threat.distance(points, slots.x.index_select(0, rows))
                board.keep(*kept, success=distance <= threat.radius, distance=distance)
        if len(claims):
            board.nonfinite[positions[claims]] |= ~answer.logits[claims].isfinite().all(1)


def _slots(job: Job) -> State:
    """Return what the engine itself remembers of every slot."""
    return State(x=job.x, y=job.y, lo=job.lo, hi=job.hi)


def _better(
    threat: ThreatModel,
    points: Tensor,
    missed: Tensor,
    loss: Tensor,
    slots: State,
    board: Board,
    positions: Tensor,
    point: Point,
) -> Tensor:
    """Return the rows whose points lie inside the threat and are to be kept instead of those that are."""
    broken, highest = (kept.index_select(0, positions) for kept in (board.broken, board.loss))
    rows = outranks(missed, broken, loss > highest, point).nonzero()[:, 0]
    if not len(rows):
        return rows
    if 2 * len(rows) > len(points):  # gathering most rows would cost more than the others' answers
        return rows[threat.within(points, slots.x, slots.lo, slots.hi).index_select(0, rows)]
    points, lo, hi = (each.index_select(0, rows) for each in (points, slots.lo, slots.hi))
    x = slots.x if threat.bounds_decide else slots.x.index_select(0, rows)
    return rows[threat.within(points, x, lo, hi)]


def _nearer(threat: ThreatModel, points: Tensor, missed: Tensor, x: Tensor, distance: Tensor) -> Tensor:
    """Return the rows whose points are adversarial and nearer than ``distance`` [slots], inside the ball or not."""
    rows = missed.nonzero()[:, 0]
    if not len(rows):
        return rows
    points, x = points.index_select(0, rows), x.index_select(0, rows)
    return rows[(threat.distance(points, x) < distance[rows]) & threat.admits(points, x)]


def _finite(answer: Answer, board: Board, positions: Tensor) -> Answer:
    """Zero the gradient entries that are not finite, and remember the samples."""
    gradient = answer.slope
    suspect = ~gradient.flatten(1).sum(1).isfinite()  # one pass; a false alarm by overflow costs nothing
    if not suspect.any():
        return answer
    board.nonfinite[positions] |= ~gradient.flatten(1).isfinite().all(1)
    return Answer(logits=answer.logits, loss=answer.loss, gradient=gradient.nan_to_num(nan=0, posinf=0, neginf=0))
