"""Toy defences around a bundled network that stay broken after eval(): models of a user's file.

Each wraps ``mnist_cnn`` and leaves its predictions nearly as they were.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robusteval.models.bundled import Bundled


def plain() -> nn.Sequential:
    module = Bundled(name="mnist_cnn").load().module
    assert isinstance(module, nn.Sequential)
    return module


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class SoftmaxOutput(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).softmax(1)


class ScaledLogits(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * self.net(x)


class QuantisedInput(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.net((x * 15).round() / 15)


class Jpeg(Wrapped):
    """Rounds the cosine transform of 8 x 8 blocks, coarser for high frequencies, as JPEG does."""

    def forward(self, x: Tensor) -> Tensor:
        k = torch.arange(8.0)
        basis = torch.cos((2 * k + 1) * k[:, None] * torch.pi / 16) / 2
        basis[0] /= 2**0.5
        blocks = F.pad(x * 255 - 128, (2, 2, 2, 2), value=-128).unfold(2, 8, 8).unfold(3, 8, 8)
        table = 8 * (1 + k + k[:, None])
        packed = (basis @ blocks @ basis.T / table).round() * table
        pixels = (basis.T @ packed @ basis).permute(0, 1, 2, 4, 3, 5).reshape(len(x), 1, 32, 32)
        return self.net(((pixels[:, :, 2:30, 2:30] + 128) / 255).clamp(0, 1))


class ZeroGradientLayer(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.detach() + 0 * x)


class DetachedGraph(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.detach())


class RandomNoise(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.1 * torch.randn_like(x))


class ForcedDropout(Wrapped):
    """Its dropout stays on, whatever eval() says."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.3)

    def train(self, mode: bool = True) -> "ForcedDropout":
        super().train(mode)
        self.dropout.train()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.net[5:](self.dropout(self.net[:5](x)))


class ForcedBatchStatistics(Wrapped):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(16, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.net[0](x)
        return self.net[1:](h + 0.3 * self.norm(h))


class KWinners(Wrapped):
    """Keeps the largest fifth of each hidden layer's units (Xiao et al. 2020, https://arxiv.org/abs/1905.10510)."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = self._winners(x) if isinstance(layer, nn.ReLU) else layer(x)
        return x

    def _winners(self, h: Tensor) -> Tensor:
        least = h.flatten(1).topk(h[0].numel() // 5, 1).values[:, -1]
        return h * (h >= least.view(-1, *[1] * (h.ndim - 1)))


class MultiResolution(Wrapped):
    """Views at four resolutions with noise that the pixels decide, and of each class the third highest answer: like
    the ensemble of Fort & Lakshminarayanan 2024 (https://arxiv.org/abs/2408.05446).
    """

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.arange(1.0, x[0].numel() + 1, dtype=torch.float64)
        seeds = ((x.detach().double().flatten(1) * weights).sum(1) * 1e6).long()
        answers = []
        for view, side in enumerate((28, 28, 14, 14, 7, 7, 4, 4)):
            noise = torch.stack(
                [
                    torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(int(s) % 2**31 + view))
                    for s in seeds
                ]
            )
            small = F.interpolate(x + 0.1 * noise, (side, side), mode="area")
            answers.append(self.net(0.5 * x + 0.5 * F.interpolate(small, x.shape[2:], mode="bilinear")))
        z = torch.stack(answers, 1)
        z = z - z.amax(2, keepdim=True)
        z = z - z.amax(1, keepdim=True)
        return z.topk(3, 1).values[:, 2]


class Adaptive(Wrapped):
    """Moves each image along its own gradient first."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            at = x.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.net(at).logsumexp(1).sum(), at)
        return self.net(x + 0.01 * slope.sign())


class OtherOrder(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).roll(1, 1)
