"""What is known of every sample of a chunk while a stage runs: its best point, its verdict, its cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robusteval.attacks import geometry, losses
from robusteval.attacks.base import Query
from robusteval.threat import ThreatModel

SURVEY_STATISTICS = ("confidence", "label_logit", "logsumexp", "sum_p2", "entropy", "linf", "l2")


@dataclass(kw_only=True)
class Survey:
    """Answers for every (sample, parameter): [n, columns] each; statistics of the softmax in float32.

    ``broken`` says missed and inside the threat model, ``inside`` the latter alone.
    """

    prediction: Tensor
    inside: Tensor
    broken: Tensor
    statistics: dict[str, Tensor]

    @classmethod
    def of(cls, n: int, columns: int, device: torch.device) -> "Survey":
        return cls(
            prediction=torch.zeros(n, columns, dtype=torch.int32, device=device),
            inside=torch.zeros(n, columns, dtype=torch.bool, device=device),
            broken=torch.zeros(n, columns, dtype=torch.bool, device=device),
            statistics={name: torch.full((n, columns), torch.nan, device=device) for name in SURVEY_STATISTICS},
        )

    def note(
        self, positions: Tensor, query: Query, logits: Tensor, y: Tensor, x: Tensor, missed: Tensor, inside: Tensor
    ) -> None:
        """Write one answer a row; ``missed`` and ``inside`` [slots] say whether it missed, and is in the threat."""
        if query.column is None:
            raise LookupError("a survey's query names its column")
        at = (positions, query.column)
        log_p = logits.double().log_softmax(1)
        p = log_p.exp()
        values = {
            "confidence": p.amax(1),
            "label_logit": logits.gather(1, y[:, None])[:, 0],
            "logsumexp": logits.double().logsumexp(1),
            "sum_p2": (p * p).sum(1),
            "entropy": -torch.where(p > 0, p * log_p, 0).sum(1),
            "linf": geometry.length(query.points - x, "linf"),
            "l2": geometry.length(query.points - x, "l2"),
        }
        self.prediction[at] = logits.argmax(1).int()
        self.inside[at] = inside
        self.broken[at] = missed & inside
        unusable = ~logits.isfinite().all(1)
        for name, value in values.items():
            softmax = name not in ("linf", "l2")
            self.statistics[name][at] = value.masked_fill(unusable & softmax, torch.nan).float()


@dataclass(kw_only=True)
class Board:
    """Per-sample results, first dimension the position in the chunk.

    ``point`` is the kept image: the first success, the point of highest cross-entropy or the nearest adversarial, at
    first the clean image; ``loss`` its cross-entropy; ``parameter`` the number behind it (NaN: none). ``distance``
    (float64; None unless the nearest is kept) is how near that is: infinite before one is found. ``broken`` holds from
    the start for samples that are wrong without an attack. ``forward`` and ``backward`` count passes.
    ``rejected`` counts claims that the verifier did not confirm, ``outside`` the points of a whole-batch attack that
    had to be brought into the threat by more than rounding (None: there was no such attack).
    """

    point: Tensor
    logits: Tensor
    loss: Tensor
    parameter: Tensor
    distance: Tensor | None
    broken: Tensor
    nonfinite: Tensor
    forward: Tensor
    backward: Tensor
    moved: Tensor
    survey: Survey | None
    rejected: int = field(default=0)
    outside: int | None = field(default=None)

    @classmethod
    def of(
        cls, images: Tensor, labels: Tensor, logits: Tensor, threat: ThreatModel, columns: int, *, nearest: bool = False
    ) -> "Board":
        n, device = len(images), images.device
        zeros = torch.zeros(n, dtype=torch.long, device=device)
        broken = threat.broken(logits, labels)
        return cls(
            point=images.clone(),
            logits=logits.clone(),
            loss=losses.cross_entropy(logits, labels).nan_to_num(nan=torch.inf),
            parameter=torch.full((n,), torch.nan, dtype=torch.float64, device=device),
            distance=torch.where(broken, 0, torch.inf).double() if nearest else None,
            broken=broken,
            nonfinite=torch.zeros(n, dtype=torch.bool, device=device),
            forward=zeros.clone(),
            backward=zeros.clone(),
            moved=torch.zeros(n, dtype=torch.bool, device=device),
            survey=Survey.of(n, columns, device) if columns else None,
        )

    def count(self, positions: Tensor, *, forward: int | Tensor, backward: int | Tensor) -> None:
        """Add passes, the same or one number each, to the samples at ``positions`` (each at most once)."""
        for counted, passes in ((self.forward, forward), (self.backward, backward)):
            if isinstance(passes, Tensor):
                counted.index_add_(0, positions, passes)
            elif passes:
                counted.index_add_(0, positions, torch.full_like(positions, passes))

    def absorb(self, other: "Board", order: Sequence[int]) -> None:
        """Take over what a later stage found on the samples ``order``: its breaks, and points of higher loss."""
        rows = torch.tensor(order, dtype=torch.long, device=self.broken.device)
        self.forward += other.forward
        self.backward += other.backward
        self.nonfinite |= other.nonfinite
        self.rejected += other.rejected
        fell = other.broken[rows] & ~self.broken[rows]
        higher = (other.broken[rows] == self.broken[rows]) & (other.loss[rows] > self.loss[rows])
        takes = rows[fell | higher]
        for name in ("point", "logits", "loss", "parameter", "broken", "moved"):
            getattr(self, name)[takes] = getattr(other, name)[takes]

    def keep(
        self,
        positions: Tensor,
        points: Tensor,
        logits: Tensor,
        loss: Tensor,
        parameter: Tensor | None,
        *,
        success: bool | Tensor,
        distance: Tensor | None = None,
    ) -> None:
        """Make ``points`` the kept ones of the samples at ``positions``."""
        # Rows go by index_copy_ and index_select everywhere: torch's x[rows] takes up to ten times as long.
        self.point.index_copy_(0, positions, points)
        self.logits.index_copy_(0, positions, logits)
        self.loss.index_copy_(0, positions, loss)
        self.moved.index_fill_(0, positions, True)
        if parameter is not None:
            self.parameter.index_copy_(0, positions, parameter.double())
        if self.distance is not None and distance is not None:
            self.distance.index_copy_(0, positions, distance)
        if isinstance(success, Tensor):
            self.broken[positions] |= success
        elif success:
            self.broken.index_fill_(0, positions, True)
