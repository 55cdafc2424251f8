"""An attack on tensors in memory, without a run folder: for the self-test and the tests."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from robusteval.attacks.base import Attack
from robusteval.engine.board import Board
from robusteval.engine.jobs import Chunk
from robusteval.engine.passes import QUANTUM, Passes, frozen
from robusteval.engine.recording import Recorder, recorder_for
from robusteval.engine.search import Path, Searcher, Stop
from robusteval.engine.stages import stages_of
from robusteval.threat import ThreatModel


def search(
    attack: Attack,
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    seed: int = 0,
    slots: int = 32,
    stop: Stop = "first",
    ids: Sequence[int] | None = None,
    order: Sequence[int] | None = None,
    path: Path = "host",
    quantum: int = QUANTUM,
    recorder: Recorder | None = None,
) -> Board:
    """Attack images [n, C, H, W] with labels [n] and return the board.

    ``ids`` are the sample ids that key the randomness (default 0..n-1), ``order`` the positions to attack, in that
    order (default: those that are right without an attack; all of them where stop=never or the attack is a survey).
    Each stage is run on the samples that still stand, with stop=never on all; an attack of none leaves every image as
    it is. ``quantum`` is that of ``Passes``, ``recorder`` that of the device path (default: on a GPU there is one).
    """
    stages = stages_of(attack, threat)
    batch = -(-slots // QUANTUM) * QUANTUM
    with frozen(module):
        oracle, verifier = (Passes(module=module, batch=batch, quantum=quantum) for _ in range(2))
        logits = verifier.logits(images)
        columns = attack.columns()
        searcher = Searcher(
            oracles={"float32": oracle},
            verifier=verifier,
            seed=seed,
            slots=slots,
            stop=stop,
            tick=lambda settled: None,
            path=path,
            recorder=recorder or recorder_for(images.device),
        )
        numbers = np.arange(len(images)) if ids is None else np.asarray(ids, dtype=np.int64)
        chunk = Chunk(images=images, labels=labels, logits=logits, ids=numbers)
        if order is None:
            everyone = stop == "never" or columns is not None
            wrong = threat.broken(logits, labels)
            order = [row for row in range(len(images)) if everyone or not wrong[row]]
        if not stages:
            return Board.of(images, labels, logits, threat, columns=0)
        board = searcher.run(stages[0], chunk, order)
        for stage in stages[1:]:
            standing = [row for row in order if stop == "never" or not board.broken[row]]
            board.absorb(searcher.run(stage, chunk, standing), standing)
        return board
