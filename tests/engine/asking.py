"""A network that cannot be recorded."""

from torch import Tensor, nn


class Asks(nn.Module):
    """Wants to know a number on the way."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x if float(x.detach().sum()) > 0 else x + 1)
