"""Where an evaluation runs: the device of each of its processes, how many samples at once, and on which path."""

from typing import Literal

import torch
from torch import Tensor, nn

from robusteval.errors import UserError


def devices_of(name: str, workers: int, gpus: int) -> list[torch.device]:
    """Return the device of each of ``workers`` processes: the processor for all of them, or a GPU for each.

    ``name`` is ``runtime.device``, ``gpus`` how many CUDA devices torch shows. Two processes on one GPU would only wait
    for each other, so that is refused. Raises UserError for it, and where a device is not there.
    """
    if name == "cpu" or (name == "auto" and not gpus):
        return [torch.device("cpu")] * workers
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise UserError(
                "runtime.device=mps: this machine shows no Apple GPU to torch; use runtime.device=cpu or auto"
            )
        if workers > 1:
            raise UserError(f"runtime.workers={workers} with runtime.device=mps: there is 1; use runtime.workers=1")
        return [torch.device("mps")]
    wanted = torch.device("cuda" if name == "auto" else name)
    if (wanted.index or 0) >= gpus:
        raise UserError(
            f"runtime.device={name}: this machine shows {gpus} CUDA devices to torch; use runtime.device=cpu or auto"
        )
    there = [torch.device("cuda", index) for index in range(gpus)] if wanted.index is None else [wanted]
    if workers > len(there):
        raise UserError(
            f"runtime.workers={workers} with runtime.device={name}: each process takes a GPU of its own, and there "
            f"{'is 1' if len(there) == 1 else f'are {len(there)}'}; use runtime.workers={len(there)}, or "
            "runtime.device=cpu"
        )
    return there[:workers]


_TINY = 250_000  # weights of a network whose pass over an image takes about 0.1 ms


class Across(nn.Module):
    """A network on another device than its images: they go there and its answers come back, gradients too."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network, self.device = network, device

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.to(self.device)).to(images.device)


def slots_for(device: torch.device, side: int, weights: int) -> int:
    """Return how many samples to attack at once: a guess by memory and speed, which changes no result.

    ``side`` is that of the images in pixels, ``weights`` the number of the network's.
    """
    if device.type == "cuda":
        return 512 if side <= 64 else 64
    # Of a tiny network an iteration costs hardly more than its many small steps: with 256 slots instead of 64 Square
    # took 0.6 to 0.7 of the time, FAB and PGD 0.8 to 1.0. ResNet-32 (0.46 million weights) gains nothing.
    if side <= 32 and weights <= _TINY:
        return 256
    return 64 if side <= 64 else 16


def emulates_bfloat16(device: torch.device, machine: str, capability: str) -> bool:
    """Return whether bfloat16 is dearer than float32 there: on x86 processors before AVX-512, by a factor of ten.

    ``machine`` is as platform.machine() says, ``capability`` as torch.backends.cpu.get_cpu_capability().
    """
    x86 = machine.lower() in ("x86_64", "amd64", "i686", "x86")
    return device.type == "cpu" and x86 and capability in ("DEFAULT", "NO AVX", "AVX", "AVX2")


def path_for(device: torch.device, wish: Literal["auto", "host", "device"]) -> Literal["host", "device"]:
    """Return how stages run: as wished, or on the path that waits for a GPU as seldom as can be where there is one."""
    if wish == "auto":
        return "device" if device.type == "cuda" else "host"
    return wish
