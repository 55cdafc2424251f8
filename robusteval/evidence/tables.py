"""The columns of shards and samples: from the engine's tensors to tables, and from shards to samples.parquet."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from torch import Tensor

from robusteval.attacks import geometry
from robusteval.engine.board import SURVEY_STATISTICS, Board
from robusteval.metrics.predictions import Predictions, Prefix
from robusteval.metrics.transforms import UNTRANSFORMED


def table(columns: Mapping[str, np.ndarray | pa.Array]) -> pa.Table:
    """Return a table; two-dimensional arrays become lists of fixed size."""
    return pa.table({name: _array(value) for name, value in columns.items()})


def _array(value: "np.ndarray | pa.Array") -> pa.Array:
    if isinstance(value, pa.Array):
        return value
    if value.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(value).ravel()), value.shape[1])
    return pa.array(value)


def clean_table(
    ids: np.ndarray,
    labels: np.ndarray,
    logits: Tensor,
    broken: Tensor,
    *,
    plain: Tensor | None = None,
    temperature: float | None = None,
) -> pa.Table:
    """Return the clean shard of a chunk: label, verdict and statistics of every image.

    Of a transformed model with the prediction before its transforms, whose logits are ``plain``, and the statistics
    before its ``temperature``, where it has one.
    """
    values = logits.cpu().numpy()
    return table(
        {
            "id": ids.astype(np.int64),
            "label": labels.astype(np.int32),
            "clean_correct": ~broken.cpu().numpy(),
            "nonfinite": ~np.isfinite(values).all(axis=1),
            **Predictions.from_logits(values, labels).columns("clean"),
            **_untempered(values, labels, "clean_untempered", temperature),
            **({} if plain is None else {UNTRANSFORMED: _predicted(plain.cpu().numpy(), labels)}),
        }
    )


def stage_table(
    board: Board,
    images: Tensor,
    ids: np.ndarray,
    labels: np.ndarray,
    entered: Sequence[int],
    *,
    temperature: float | None = None,
) -> pa.Table:
    """Return the shard of a stage on a chunk: one row for each sample that entered it.

    Of a model whose logits were divided by a ``temperature`` with the statistics before that.
    """
    rows = np.asarray(entered, dtype=np.int64)
    parameter, logits = board.parameter[entered].cpu().numpy(), board.logits[entered].cpu().numpy()
    columns: dict[str, np.ndarray | pa.Array] = {
        "id": ids[rows].astype(np.int64),
        "broken": board.broken[entered].cpu().numpy(),
        "nonfinite": board.nonfinite[entered].cpu().numpy(),
        "forward_passes": board.forward[entered].cpu().numpy(),
        "backward_passes": board.backward[entered].cpu().numpy(),
        "distance_linf": _distance(board.point, images, entered, "linf"),
        "distance_l2": _distance(board.point, images, entered, "l2"),
        "attack_parameter": pa.array(parameter, mask=np.isnan(parameter)),
        **Predictions.from_logits(logits, labels[rows]).columns("attacked"),
        **_untempered(logits, labels[rows], "attacked_untempered", temperature),
    }
    if board.distance is not None:
        distance = board.distance[entered].cpu().numpy()
        columns["adversarial_distance"] = pa.array(distance, mask=~np.isfinite(distance))
    if board.survey is not None:
        columns["survey_prediction"] = board.survey.prediction[entered].cpu().numpy()
        columns["survey_inside"] = board.survey.inside[entered].cpu().numpy()
        columns["survey_broken"] = board.survey.broken[entered].cpu().numpy()
        for name in SURVEY_STATISTICS:
            columns[f"survey_{name}"] = board.survey.statistics[name][entered].cpu().numpy()
    return table(columns)


def _untempered(
    logits: np.ndarray, labels: np.ndarray, prefix: Prefix, temperature: float | None
) -> dict[str, np.ndarray]:
    if temperature is None:
        return {}
    return Predictions.from_logits(logits.astype(np.float64) * temperature, labels).columns(prefix)


def _predicted(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the predictions of logits [n, classes], and -1 where they are not finite: that is never right."""
    found = Predictions.from_logits(logits, labels)
    return np.where(found.usable, found.predictions, -1).astype(np.int32)


def _distance(points: Tensor, images: Tensor, rows: Sequence[int], norm: str) -> np.ndarray:
    """Return distances [rows] in float64, image by image: two chunks of large images in float64 fill memory."""
    return np.array([float(geometry.length((points[[i]].double() - images[[i]].double()), norm)) for i in rows])
