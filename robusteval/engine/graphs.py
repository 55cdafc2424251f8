"""CUDA graphs of a network's passes: what a pass tells the GPU is recorded once and replayed with one call.

On images of few pixels a GPU is done with a layer before the host has named the next one, so the host sets the pace. A
replay runs the same kernels on the same memory and gives the same bits, which is tried before a recording serves; where
a network cannot be recorded, or answers otherwise, it runs as it is. Recordings serve the search alone: the verifier
never uses one.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from robusteval.engine.passes import RAISED_BY_NETWORKS

# A pass that takes more than this share of the GPU's memory keeps it busy anyway, and recordings keep their memory.
_SHARE = 1 / 20
_WARM_UP = 3  # passes before a recording: kernels are loaded and chosen, memory is laid out


class Recording(Protocol):
    """Passes of one network for one shape of a batch. What they return is overwritten by the next call."""

    def forward(self, points: Tensor) -> Tensor:
        """Return logits [n, classes] of points [n, C, H, W]."""
        ...

    def backward(self, slope: Tensor) -> Tensor:
        """Return the gradient [n, C, H, W] at the last points, from that of the loss by the logits [n, classes]."""
        ...


Record = Callable[[nn.Module, Tensor, bool], Recording]


class Graphed(nn.Module):
    """A frozen network whose passes are replayed, for each shape of a batch with and without gradients.

    ``record(network, points, gradient)`` makes a recording, and raises what networks raise where it cannot.
    """

    def __init__(self, network: nn.Module, record: Record | None = None) -> None:
        super().__init__()
        self.network = network
        self.record = record or _Graphs
        self._recordings: dict[tuple[torch.Size, torch.dtype, bool], Recording | None] = {}
        self._passes = 0  # so that a gradient is that of the last points, and of no others

    def forward(self, points: Tensor) -> Tensor:
        """Return what the network does, in memory that stays."""
        gradient = torch.is_grad_enabled() and points.requires_grad
        key = (points.shape, points.dtype, gradient)
        if key not in self._recordings:
            self._recordings[key] = self._tried(points.detach(), gradient)
        recording = self._recordings[key]
        if recording is None:
            return self.network(points)
        self._passes += 1
        return _Replay.apply(points, recording, self) if gradient else recording.forward(points).clone()

    def _tried(self, points: Tensor, gradient: bool) -> Recording | None:
        """Return a recording that gives the network's own bits on other points than it was made with, or None."""
        try:
            recording = self.record(self.network, points, gradient)
            for other in (points.flip(0), 1 - points):
                if not _alike(self.network, recording, other, gradient):
                    return None
        except RAISED_BY_NETWORKS:  # such as a question to a tensor, or no memory: so it runs as it is
            return None
        return recording


def replayed(network: nn.Module, device: torch.device, path: Literal["host", "device"]) -> nn.Module:
    """Return a frozen network as the search asks it: on a GPU and the path for it by recordings, elsewhere as it is."""
    return Graphed(network) if device.type == "cuda" and path == "device" else network


def without_recordings(network: nn.Module) -> nn.Module:
    """Return a network without what was recorded of it, whose memory may be needed."""
    return Graphed(network.network, network.record) if isinstance(network, Graphed) else network


class _Replay(torch.autograd.Function):
    """A recording as one differentiable function."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, recording: Recording, graphed: Graphed) -> Tensor:
        ctx.recording, ctx.graphed, ctx.number = recording, graphed, graphed._passes
        return recording.forward(points).clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        if ctx.number != ctx.graphed._passes:
            raise RuntimeError("a recorded pass was overwritten by a later one before its gradient was asked for")
        return ctx.recording.backward(slopes[0]).clone(), None, None


@dataclass(kw_only=True)
class _Pass:
    """What a pass reads and writes, always in the same memory."""

    points: Tensor
    logits: Tensor
    slope: Tensor | None = None
    gradient: Tensor | None = None


class _Graphs:
    """A recording by CUDA graphs, one of the forward pass and one of the backward pass."""

    def __init__(self, network: nn.Module, points: Tensor, gradient: bool) -> None:
        leaf = points.detach().clone().requires_grad_(gradient)
        _warm_up(network, leaf)
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._forward), torch.set_grad_enabled(gradient):
            logits = network(leaf.clone())
        self._memory = _Pass(points=leaf, logits=logits)
        if gradient:
            slope = torch.zeros_like(logits)
            with torch.cuda.graph(self._backward, pool=self._forward.pool()):
                # What the forward pass saved stays, for a second slope at the same points.
                (self._memory.gradient,) = torch.autograd.grad(logits, leaf, slope, retain_graph=True)
            self._memory.slope = slope

    def forward(self, points: Tensor) -> Tensor:
        self._memory.points.detach().copy_(points.detach())
        self._forward.replay()
        return self._memory.logits.detach()

    def backward(self, slope: Tensor) -> Tensor:
        if self._memory.slope is None or self._memory.gradient is None:
            raise LookupError("this pass was recorded without a gradient")
        self._memory.slope.copy_(slope)
        self._backward.replay()
        return self._memory.gradient


def _warm_up(network: nn.Module, leaf: Tensor) -> None:
    """Run the passes some times on a stream of their own, as CUDA asks for before a recording.

    Raises RuntimeError where they take so much memory that recordings are not worth theirs.
    """
    device = leaf.device
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    with _aside(device), torch.set_grad_enabled(leaf.requires_grad):
        for _ in range(_WARM_UP):
            logits = network(leaf.clone())
            if leaf.requires_grad:
                torch.autograd.grad(logits, leaf, torch.ones_like(logits))
    taken = torch.cuda.max_memory_allocated(device) - before
    if taken > _SHARE * torch.cuda.get_device_properties(device).total_memory:
        raise RuntimeError(f"a pass of {len(leaf)} images takes {taken} bytes")


@contextlib.contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """Run what follows on another stream, after what is under way and before what comes then."""
    stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


def _alike(network: nn.Module, recording: Recording, points: Tensor, gradient: bool) -> bool:
    """Return whether the recording answers as the network does, bit by bit, twice at the same points."""
    with torch.set_grad_enabled(gradient):
        leaf = points.clone().requires_grad_(gradient)
        due = network(leaf.clone())
    came = recording.forward(points).clone()
    if not _equal(came, due.detach()):
        return False
    if not gradient:
        return True
    ramp = torch.arange(due.numel(), device=due.device, dtype=due.dtype).reshape(due.shape)
    for slope in (ramp.cos(), ramp.sin()):
        (wanted,) = torch.autograd.grad(due, leaf, slope, retain_graph=True)
        if not _equal(recording.backward(slope), wanted):
            return False
    return True


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
