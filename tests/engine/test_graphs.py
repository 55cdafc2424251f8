"""What surrounds a CUDA graph, on a pretended torch.cuda: memory that is weighed, and what a failure leaves behind."""

import contextlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from robusteval.engine.recording import Recorder, Result

GIB = 2**30


class Pretended:
    """The functions of torch.cuda that a recording calls, on the processor, with a memory of 80 GiB."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.allocated, self.peak, self.keeps = 0, 0, 0
        self.sync, self.stream, self.recording = 0, "main", False
        self.replays, self.mended = 0, 0
        generator = SimpleNamespace(clone_state=lambda: "state", graphsafe_set_state=self._mend)
        for name, value in {
            "device": lambda device: contextlib.nullcontext(),
            "Stream": lambda device: SimpleNamespace(wait_stream=lambda other: None),
            "current_stream": lambda device: SimpleNamespace(wait_stream=lambda other: None, name="main"),
            "stream": lambda stream: contextlib.nullcontext(),
            "set_stream": lambda stream: setattr(self, "stream", stream.name),
            "graph_pool_handle": lambda: (0, 1),
            "memory_allocated": lambda device: self.allocated,
            "max_memory_allocated": lambda device: self.allocated + self.peak,
            "reset_peak_memory_stats": lambda device: None,
            "get_device_properties": lambda device: SimpleNamespace(total_memory=80 * GIB),
            "get_sync_debug_mode": lambda: self.sync,
            "set_sync_debug_mode": lambda mode: setattr(self, "sync", mode),
            "CUDAGraph": lambda: SimpleNamespace(replay=self._replay),
            "graph": self._graph,
            "default_generators": [generator],
            "current_device": lambda: 0,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    @contextlib.contextmanager
    def _graph(self, graph: Any, pool: Any, stream: Any) -> Iterator[None]:
        self.recording, self.stream = True, "side"
        yield
        self.recording, self.stream = False, "main"  # as in torch: not where the block raises
        self.allocated += self.keeps

    def _replay(self) -> None:
        self.replays += 1

    def _mend(self, state: str) -> None:
        self.mended += 1


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    return Pretended(monkeypatch)


def adds(tensors: Sequence[Tensor]) -> Result:
    return [tensors[0] + 1], [tensors[0] * 2], "facts"


def found(recorder: Recorder, key: str = "", function: Any = adds) -> bool:
    """Return whether a recording serves. One argument only, or the trial would see that nothing is replayed here."""
    recorder._trusted.add(key)
    return recorder.find(key, function, [torch.ones(3)]) is not None


def test_a_recording_is_made_and_replayed(cuda: Pretended) -> None:
    recorder = Recorder(after=0)
    assert found(recorder)
    recording = recorder.find("", adds, [torch.ones(3)])
    assert recording is not None
    carried, kept, facts = recording([torch.ones(3)])
    assert (carried[0].tolist(), kept[0].tolist(), facts) == ([2, 2, 2], [2, 2, 2], "facts")
    assert cuda.replays == 1
    assert (cuda.sync, cuda.stream, cuda.recording) == (0, "main", False)


def test_what_keeps_the_gpu_busy_is_not_recorded(cuda: Pretended) -> None:
    cuda.peak = 5 * GIB
    recorder = Recorder(after=0)
    assert not found(recorder)
    cuda.peak = 3 * GIB
    assert found(recorder, "another")


def test_recordings_keep_a_share_of_the_memory_at_most(cuda: Pretended) -> None:
    cuda.keeps = 3 * GIB
    recorder = Recorder(after=0)
    assert [found(recorder, str(number)) for number in range(6)] == [True] * 4 + [False] * 2


def test_a_question_before_the_recording_spoils_nothing(cuda: Pretended) -> None:
    def asks(tensors: Sequence[Tensor]) -> Result:
        if cuda.sync == "error":
            raise RuntimeError("called a synchronizing CUDA operation")
        return adds(tensors)

    recorder = Recorder(after=0)
    assert not found(recorder, "asks", asks)
    assert cuda.sync == 0
    assert found(recorder)


@pytest.mark.parametrize(
    "error", [RuntimeError("operation not permitted when stream is capturing"), KeyboardInterrupt()]
)
def test_a_recording_that_fails_is_the_last_one(cuda: Pretended, error: BaseException) -> None:
    def fails(tensors: Sequence[Tensor]) -> Result:
        if cuda.recording:
            raise error
        return adds(tensors)

    recorder = Recorder(after=0)
    if isinstance(error, Exception):
        assert not found(recorder, "fails", fails)
    else:
        with pytest.raises(type(error)):
            found(recorder, "fails", fails)
    assert (cuda.stream, cuda.mended) == ("main", 1)
    assert not found(recorder)
