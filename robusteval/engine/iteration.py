"""One iteration on the device: every answer noted, nothing asked, and recorded where that pays."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robusteval.attacks import losses
from robusteval.attacks.base import Answer, Attack, Query, State, rows
from robusteval.engine.jobs import Point, confined
from robusteval.engine.passes import Passes
from robusteval.engine.recording import Recorder, Result
from robusteval.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Who answers, who verifies, and what makes a point worth keeping."""

    oracle: Passes
    verifier: Passes
    threat: ThreatModel
    point: Point

    @property
    def verifies(self) -> bool:
        """Whether a claim is still to be verified."""
        return self.oracle is not self.verifier


@dataclass(frozen=True, kw_only=True)
class Note:
    """What one answer came to, on the device: ``marks`` [5, slots] are rows of ``Window``, the rest is kept for later.

    The engine's own copies, since an attack may go on in the memory of its points.
    """

    points: Tensor
    logits: Tensor
    loss: Tensor
    parameter: Tensor | None
    column: Tensor | None
    marks: Tensor
    forward: int
    backward: int


_Facts = tuple[int, int, bool, bool]
"""Passes forward and backward, whether a note has a parameter, and a column."""


def iterate(
    attack: Attack, state: State, x: Tensor, y: Tensor, rules: Rules, recorder: Recorder | None = None, key: str = ""
) -> tuple[Tensor, list[Note]]:
    """Run one iteration of samples [slots, ...]; return which jobs have ended [slots], and a note of every answer.

    With ``recorder`` by the recording for ``key``, these rules and what of the state is no tensor, once there is one.
    """
    if recorder is None:
        return _iterate(attack, state, x, y, rules)
    names = [name for name, value in vars(state).items() if isinstance(value, Tensor)]
    arguments = [*(getattr(state, name) for name in names), x, y]
    besides = _besides(state, names)

    def function(arguments: Sequence[Tensor]) -> Result:
        *tensors, x, y = arguments
        own = State(**copy.deepcopy(besides), **dict(zip(names, tensors, strict=True)))
        done, notes = _iterate(attack, own, x, y, rules)
        if _besides(own, names) != besides:
            raise RuntimeError("an iteration changed what is no tensor, which a recording would not")
        tensors, facts = _flat(notes)
        return [getattr(own, name) for name in names], [done, *tensors], facts

    # The recorder keeps ``function`` and with it these objects, so that no other gets the id of one of them.
    kind = (key, id(attack), id(rules.threat), id(rules.oracle.module), rules.oracle.quantum, rules.point)
    recording = recorder.find((kind, repr(besides), *names), function, arguments)
    if recording is None:
        return _iterate(attack, state, x, y, rules)
    carried, (done, *parts), facts = recording(arguments)
    for name, value in zip(names, carried, strict=True):
        setattr(state, name, value)
    return done, _notes(parts, facts)


def _flat(notes: Sequence[Note]) -> tuple[list[Tensor], list[_Facts]]:
    """Return the tensors of notes, one after the other, and what else there is to know of each."""
    tensors: list[Tensor] = []
    for note in notes:
        tensors += [note.points, note.logits, note.loss, note.marks]
        tensors += [values for values in (note.parameter, note.column) if values is not None]
    return tensors, [
        (note.forward, note.backward, note.parameter is not None, note.column is not None) for note in notes
    ]


def _notes(tensors: Sequence[Tensor], facts: Sequence[_Facts]) -> list[Note]:
    """Return the notes that ``_flat`` has taken apart."""
    following = iter(tensors)
    return [
        Note(
            points=next(following),
            logits=next(following),
            loss=next(following),
            marks=next(following),
            parameter=next(following) if has_parameter else None,
            column=next(following) if has_column else None,
            forward=forward,
            backward=backward,
        )
        for forward, backward, has_parameter, has_column in facts
    ]


def _besides(state: State, names: Sequence[str]) -> dict[str, Any]:
    """Return what a state holds besides the tensors of these names."""
    return {name: value for name, value in vars(state).items() if name not in names}


def _iterate(attack: Attack, state: State, x: Tensor, y: Tensor, rules: Rules) -> tuple[Tensor, list[Note]]:
    """Run one iteration, note every answer, and return which jobs have ended: those stay as they were before it.

    So an ended job repeats its last iteration, and no table is read beyond its end.
    """
    before = {name: value for name, value in vars(state).items() if isinstance(value, Tensor)}
    notes: list[Note] = []
    steps = attack.iterate(state)
    query = next(steps)
    while True:
        answer = rules.oracle.ask(query)
        note, answer = _noted(query, answer, x, y, rules)
        notes.append(note)
        try:
            query = steps.send(answer)
        except StopIteration as end:
            done = end.value
            break
    for name, old in before.items():
        if (new := getattr(state, name)) is not old:
            setattr(state, name, torch.where(rows(done, new), old, new))
    return done, notes


def _noted(query: Query, answer: Answer, x: Tensor, y: Tensor, rules: Rules) -> tuple[Note, Answer]:
    """Return what an answer came to, and the answer as the attack may see it: with a gradient that is finite."""
    threat, points = rules.threat, query.points
    forward, backward = rules.oracle.cost(query, answer)
    loss = losses.cross_entropy(answer.logits, y).nan_to_num(nan=torch.inf)
    missed, finite = threat.broken(answer.logits, y), answer.logits.isfinite().all(1)
    if rules.point == "nearest":
        rank, inside = threat.distance(points, x), threat.admits(points, x)
    else:
        rank, inside = loss, threat.contains(points, x)
    unusable = torch.zeros_like(missed)
    answer = confined(answer, threat)
    if answer.gradient is not None:
        unusable = ~answer.gradient.flatten(1).isfinite().all(1)
        gradient = answer.gradient.nan_to_num(nan=0, posinf=0, neginf=0)
        answer = Answer(logits=answer.logits, loss=answer.loss, gradient=gradient)
    note = Note(
        points=points.clone(),
        logits=answer.logits.clone(),
        loss=loss,
        parameter=None if query.parameter is None else query.parameter.clone(),
        column=None if query.column is None else query.column.clone(),
        marks=torch.stack([mark.double() for mark in (missed, inside, rank, finite, unusable)]),
        forward=forward,
        backward=backward,
    )
    return note, answer
