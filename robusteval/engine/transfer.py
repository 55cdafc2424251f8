"""The ways between host and device."""

import numpy as np
import torch
from torch import Tensor


def to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Return numbers of the host on ``device``: on the CPU the same memory, on a GPU a copy that nobody waits for.

    The copy comes from pinned memory, which torch does not use again before the copy is done.
    """
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(values: Tensor) -> np.ndarray:
    """Return numbers of the device on the host. Waits until the device has them."""
    return values.cpu().numpy()
