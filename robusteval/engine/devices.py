"""Where an evaluation runs, and how many samples at once."""

import torch

from robusteval.errors import UserError


def device_of(name: str) -> torch.device:
    """Return the device that ``runtime.device`` names. Raises UserError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise UserError(
                f"runtime.device={name}: this machine shows {count} CUDA devices to torch; use runtime.device=cpu "
                "or auto"
            )
    return device


def slots_for(device: torch.device, side: int) -> int:
    """Return how many samples to attack at once: a guess by memory, which changes no result."""
    if device.type == "cuda":
        return 512 if side <= 64 else 64
    return 64 if side <= 64 else 16
