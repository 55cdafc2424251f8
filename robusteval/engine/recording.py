"""CUDA graphs of iterations: what an iteration tells the GPU is recorded once, and replayed with one call.

On small images a GPU is done with an operation before the host has named the next one, so that the host sets the pace.
A replay runs the same kernels and gives the same bits, which is tried once for every kind of iteration; what cannot be
recorded, or answers otherwise, runs as it is. Recordings serve the search alone: no claim counts before the model as
given has predicted the point again.
"""

import contextlib
import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from robusteval.engine.passes import RAISED_BY_NETWORKS
from robusteval.engine.selftest import equal
from robusteval.errors import RobustevalError

Result = tuple[Sequence[Tensor], Sequence[Tensor], Any]
"""Tensors for the next call, tensors to keep, and facts that are the same for every call."""

Function = Callable[[Sequence[Tensor]], Result]
"""Of tensors that always have the same shapes. Those for the next call are new, or arguments in their own places."""

Record = Callable[[Function, Sequence[Tensor]], Function]
"""Makes a recording from a function and arguments; all tensors that it returns are overwritten by its next call."""

# Iterations of one kind before it is recorded, which takes as long as a few: what ends at once never is.
_AFTER = 8
# What takes more than this share of the GPU's memory keeps it busy anyway; and what all recordings may keep of it.
_SHARE, _ALL = 1 / 20, 1 / 8
_NOISE = 10  # how far a recording may be from its function, in units of what the function differs from itself


class Recorder:
    """Recordings of what is called more than ``after`` times, by key. ``record`` makes them, and raises if it can't."""

    def __init__(self, record: Record | None = None, after: int = _AFTER) -> None:
        self._record, self._after = record or _Graphs().record, after
        self._calls: dict[Any, int] = {}
        self._recordings: dict[Any, Function | None] = {}
        self._trusted: set[Any] = set()  # what a trial has shown of one shape holds of the others

    @property
    def served(self) -> int:
        """How many recordings serve."""
        return sum(recording is not None for recording in self._recordings.values())

    def forget(self) -> None:
        """Give all recordings up, whose memory may be needed."""
        self._recordings.clear()
        self._calls.clear()

    def find(self, key: Any, function: Function, arguments: Sequence[Tensor]) -> Function | None:
        """Return a recording of ``function``, which does the same whenever it comes with ``key``; None if none serves.

        Its tensors for the next call are overwritten by that, those to keep are not. The function is kept, so that an
        object in the key may stand there by its id. ROBUSTEVAL_DEBUG=1 shows why something is not recorded.
        """
        shaped = (key, *((tensor.shape, tensor.dtype) for tensor in arguments))
        self._calls[shaped] = self._calls.get(shaped, 0) + 1
        if self._calls[shaped] > self._after and shaped not in self._recordings:
            self._recordings[shaped] = self._recorded(key, function, arguments)
        return self._recordings.get(shaped)

    def _recorded(self, key: Any, function: Function, arguments: Sequence[Tensor]) -> Function | None:
        try:
            recording = self._record(function, arguments)
            if key not in self._trusted and not _alike(recording, function, arguments):
                return None
        except (*RAISED_BY_NETWORKS, RobustevalError):  # such as a question to a tensor, or too little memory
            if os.environ.get("ROBUSTEVAL_DEBUG"):
                traceback.print_exc()
            return None
        self._trusted.add(key)

        def keeping(arguments: Sequence[Tensor], function: Function = function) -> Result:
            carried, kept, facts = recording(arguments)
            return carried, copies(kept), facts

        return keeping


def _alike(recording: Function, function: Function, arguments: Sequence[Tensor]) -> bool:
    """Return whether a recording gives the bits of its function.

    Two calls in a row, since one might only have remembered its answer. Where the function does not give the same bits
    twice itself, as networks may not whose gradients are sums in no certain order, a tensor that differs there may
    differ here, though not much more.
    """

    def bits(function: Function) -> list[Tensor]:
        carried, kept, _ = function(copies(arguments))
        first = copies([*carried, *kept])
        following, kept, _ = function(copies([*carried, *arguments[len(carried) :]]))
        return [*first, *copies([*following, *kept])]

    came, due = bits(recording), bits(function)
    if all(map(equal, came, due)):
        return True
    again = bits(function)
    return all(
        equal(*each) or (not equal(one, other) and _apart(*each) <= _NOISE * _apart(one, other))
        for each, one, other in zip(zip(came, due, strict=True), due, again, strict=True)
    )


def recorder_for(device: torch.device) -> Recorder | None:
    """Return a recorder where recordings can be made, which is on CUDA's GPUs."""
    return Recorder() if device.type == "cuda" else None


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the same numbers in memory of their own."""
    return [tensor.clone() for tensor in tensors]


def _apart(one: Tensor, other: Tensor) -> float:
    """Return the distance of two tensors, what is not finite left out."""
    return float((one.double() - other.double()).nan_to_num(0, 0, 0).norm())


class _Graphs:
    """Makes CUDA graphs on a stream of their own, which share memory for what they forget: no two run at once."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._stream: torch.cuda.Stream | None = None
        self._kept = 0  # bytes
        self._spoiled = False

    def record(self, function: Function, arguments: Sequence[Tensor]) -> Function:
        """Return the function as a graph. Raises RuntimeError where it asks, or takes too much memory.

        A recording that was begun and failed leaves torch's allocator in a state of its own: it is the last one.
        """
        if self._spoiled:
            raise RuntimeError("an earlier recording failed in the middle")
        device = arguments[0].device
        with torch.cuda.device(device):
            self._stream = self._stream or torch.cuda.Stream(device)
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            before, current = torch.cuda.memory_allocated(device), torch.cuda.current_stream(device)
            fixed, reads = copies(arguments), Reads()
            with _aside(self._stream, current), _unasked():
                _weigh(function, fixed, device, self._kept)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream), reads:
                    results = function(fixed)
            except BaseException:
                self._spoiled = True
                torch.cuda.set_stream(current)
                _mend_generator(device)
                raise
            self._kept += torch.cuda.memory_allocated(device) - before

        # A graph knows addresses alone: what it reads there has to live as long as it does, so ``reads`` goes with it.
        def replay(arguments: Sequence[Tensor], reads: Reads = reads) -> Result:
            for into, source in zip(fixed, arguments, strict=True):
                if into is not source:
                    into.copy_(source)
            graph.replay()
            return results

        return replay


class Reads(TorchDispatchMode):
    """Collects what operations read and none of them has made: a network's weights, the tables of an attack."""

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[int, Tensor] = {}
        self._made: set[int] = set()

    @property
    def tensors(self) -> list[Tensor]:
        """What was read."""
        return list(self._found.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):
            if (place := tensor.untyped_storage()._cdata) not in self._made:
                self._found.setdefault(place, tensor)
        results = func(*args, **(kwargs or {}))
        self._made |= {tensor.untyped_storage()._cdata for tensor in _tensors(results)} - self._found.keys()
        return results


def _tensors(several: Any) -> list[Tensor]:
    return [one for one in tree_leaves(several) if isinstance(one, Tensor)]


def _weigh(function: Function, arguments: Sequence[Tensor], device: torch.device, kept: int) -> None:
    """Run a function as CUDA asks for before a recording, for kernels to be loaded and chosen.

    Raises RuntimeError where it takes so much memory that a recording would not be worth its own, or where those
    before it keep so much.
    """
    total, before = torch.cuda.get_device_properties(device).total_memory, torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    function(arguments)
    taken = torch.cuda.max_memory_allocated(device) - before
    if taken > _SHARE * total or kept > _ALL * total:
        raise RuntimeError(f"an iteration takes {taken} bytes, and recordings keep {kept}")


@contextlib.contextmanager
def _aside(stream: torch.cuda.Stream, current: torch.cuda.Stream) -> Iterator[None]:
    """Run what follows on another stream, after what is under way, and before what comes then."""
    stream.wait_stream(current)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        current.wait_stream(stream)


@contextlib.contextmanager
def _unasked() -> Iterator[None]:
    """Let a question to the GPU raise RuntimeError, as it would in a recording, but without spoiling anything."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():  # that it does not see every question: the others spoil the recording
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _mend_generator(device: torch.device) -> None:
    """Bring CUDA's random generator back, which torch leaves in a recording that failed."""
    index = torch.cuda.current_device() if device.index is None else device.index
    generator = torch.cuda.default_generators[index]
    generator.graphsafe_set_state(generator.clone_state())
