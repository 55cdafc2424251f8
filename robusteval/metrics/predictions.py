"""Predictions: what every metric needs to know about the logits, without the logits.

A thousand logits an image are too many to keep, so the evidence keeps a few statistics of the softmax and the largest
logits. One class makes them, names their columns and reads them back, so that writer and reader cannot drift apart.
"""

from dataclasses import dataclass, fields, replace
from typing import Literal, Self

import numpy as np
import pyarrow as pa

Prefix = Literal["clean", "attacked", "clean_untempered", "attacked_untempered"]

KEEP_ALL = 100
"""Up to this many classes every logit is kept, beyond it the ``KEEP_TOP`` largest."""
KEEP_TOP = 10


def kept(classes: int) -> int:
    """Return how many of the largest logits the evidence keeps for a classifier of so many classes."""
    return classes if classes <= KEEP_ALL else KEEP_TOP


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Labels, decisions and softmax statistics of n images; every array has n rows, statistics are float64.

    ``confidences`` is the largest softmax probability, ``label_logit`` the logit of the label, ``logsumexp`` that of
    all logits, ``sum_p2`` the sum of the squared probabilities, ``entropy`` in nats. ``top_classes`` and
    ``top_logits`` [n, kept] are in descending order, ties by class; -1 and NaN where only the first of them is known,
    as of a survey. Rows whose logits are not all finite hold NaN in the statistics, and in ``top_logits`` what came.
    """

    labels: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray
    label_logit: np.ndarray
    logsumexp: np.ndarray
    sum_p2: np.ndarray
    entropy: np.ndarray
    top_classes: np.ndarray
    top_logits: np.ndarray
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_logits(cls, logits: np.ndarray, labels: np.ndarray) -> Self:
        """Return the statistics of logits [n, classes] for labels [n] in ``range(classes)``, computed in float64.

        The prediction is the first largest logit, as ``torch.argmax`` decides; a NaN never wins.
        """
        classes = logits.shape[1]
        exact = logits.astype(np.float64, order="C")
        order = _descending(exact, kept(classes))
        usable = np.where(np.isfinite(exact).all(axis=1, keepdims=True), exact, np.nan)
        shifted = usable - usable.max(axis=1, keepdims=True)
        weights = np.exp(shifted)
        total = weights.sum(axis=1, keepdims=True)
        p, log_total = weights / total, np.log(total[:, 0])
        return cls(
            labels=labels.astype(np.int64),
            predictions=order[:, 0].astype(np.int64),
            confidences=p.max(axis=1),
            label_logit=np.take_along_axis(usable, labels.astype(np.int64)[:, None], axis=1)[:, 0],
            logsumexp=usable.max(axis=1) + log_total,
            sum_p2=(p * p).sum(axis=1),
            entropy=log_total - (p * shifted).sum(axis=1),
            top_classes=order,
            top_logits=np.take_along_axis(logits, order, axis=1),
            classes=classes,
        )

    @classmethod
    def from_samples(cls, table: pa.Table, prefix: Prefix, classes: int) -> Self:
        """Read the columns ``prefix_...`` and ``label`` of a table of samples."""

        def column(name: str) -> np.ndarray:
            return table.column(name).to_numpy()

        def matrix(name: str) -> np.ndarray:
            values = table.column(name)
            flat = values.combine_chunks().flatten().to_numpy(zero_copy_only=False)
            return flat.reshape(len(values), values.type.list_size)

        return cls(
            labels=column("label").astype(np.int64),
            predictions=column(f"{prefix}_prediction").astype(np.int64),
            confidences=column(f"{prefix}_confidence"),
            label_logit=column(f"{prefix}_label_logit"),
            logsumexp=column(f"{prefix}_logsumexp"),
            sum_p2=column(f"{prefix}_sum_p2"),
            entropy=column(f"{prefix}_entropy"),
            top_classes=matrix(f"{prefix}_top_classes").astype(np.int64),
            top_logits=matrix(f"{prefix}_top_logits"),
            classes=classes,
        )

    def columns(self, prefix: Prefix) -> dict[str, np.ndarray]:
        """Return the columns of the table of samples that hold these statistics, in the types they are stored in."""
        return {
            f"{prefix}_prediction": self.predictions.astype(np.int32),
            f"{prefix}_confidence": self.confidences,
            f"{prefix}_label_logit": self.label_logit,
            f"{prefix}_logsumexp": self.logsumexp,
            f"{prefix}_sum_p2": self.sum_p2,
            f"{prefix}_entropy": self.entropy,
            f"{prefix}_top_logits": self.top_logits.astype(np.float32),
            f"{prefix}_top_classes": self.top_classes.astype(np.int32),
        }

    @property
    def usable(self) -> np.ndarray:
        """Whether the logits of each image [n] were finite."""
        statistics = np.stack([self.confidences, self.label_logit, self.logsumexp, self.sum_p2, self.entropy])
        return np.isfinite(statistics).min(axis=0)

    @property
    def correct(self) -> np.ndarray:
        """Whether each image [n] is classified correctly; a network that answers NaN is not right."""
        return (self.predictions == self.labels) & self.usable

    @property
    def correct_top5(self) -> np.ndarray | None:
        """Whether the label of each image [n] is among the five most likely classes; None where not all are known."""
        if (self.top_classes[:, :5] < 0).any():
            return None
        return (self.top_classes[:, :5] == self.labels[:, None]).any(axis=1) & self.usable

    def finite(self) -> Self:
        """Return the rows whose logits were finite."""
        return self.take(self.usable)

    def take(self, rows: np.ndarray) -> Self:
        """Return the chosen rows (indices or a mask)."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[rows] for name, value in arrays.items() if isinstance(value, np.ndarray)})

    def probabilities(self) -> np.ndarray | None:
        """Return the softmax [n, classes], or None where not every logit was kept."""
        if self.top_classes.shape[1] < self.classes or (self.top_classes < 0).any():
            return None
        descending = np.exp(self.top_logits.astype(np.float64) - self.logsumexp[:, None])
        p = np.empty_like(descending)
        np.put_along_axis(p, self.top_classes, descending, axis=1)
        return p


def _descending(logits: np.ndarray, k: int) -> np.ndarray:
    """Return the classes [n, k] of the k largest logits [n, classes], the first of equal ones first, NaN last."""
    if k == logits.shape[1]:
        return np.argsort(-logits, axis=1, kind="stable")
    # A few maxima cost a hundredth of sorting a thousand logits. What was taken must fall below what is not a number.
    lowest = np.finfo(logits.dtype).min
    left = np.nan_to_num(logits, nan=lowest, posinf=np.inf, neginf=lowest)
    rows, order = np.arange(len(left)), np.empty((len(left), k), dtype=np.int64)
    for place in range(k):
        order[:, place] = left.argmax(axis=1)
        left[rows, order[:, place]] = -np.inf
    return order
