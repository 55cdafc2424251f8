"""The columns of shards and samples: from the engine's tensors to tables, and from shards to samples.parquet."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from torch import Tensor

from robusteval.attacks import geometry
from robusteval.engine.board import SURVEY_STATISTICS, Board
from robusteval.metrics.predictions import Predictions


def table(columns: Mapping[str, np.ndarray | pa.Array]) -> pa.Table:
    """Return a table; two-dimensional arrays become lists of fixed size."""
    return pa.table({name: _array(value) for name, value in columns.items()})


def _array(value: "np.ndarray | pa.Array") -> pa.Array:
    if isinstance(value, pa.Array):
        return value
    if value.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(value).ravel()), value.shape[1])
    return pa.array(value)


def clean_table(ids: np.ndarray, labels: np.ndarray, logits: Tensor, broken: Tensor) -> pa.Table:
    """Return the clean shard of a chunk: label, verdict and statistics of every image."""
    values = logits.cpu().numpy()
    return table(
        {
            "id": ids.astype(np.int64),
            "label": labels.astype(np.int32),
            "clean_correct": ~broken.cpu().numpy(),
            "nonfinite": ~np.isfinite(values).all(axis=1),
            **Predictions.from_logits(values, labels).columns("clean"),
        }
    )


def stage_table(board: Board, images: Tensor, ids: np.ndarray, labels: np.ndarray, entered: Sequence[int]) -> pa.Table:
    """Return the shard of a stage on a chunk: one row for each sample that entered it."""
    rows = np.asarray(entered, dtype=np.int64)
    parameter = board.parameter[entered].cpu().numpy()
    columns: dict[str, np.ndarray | pa.Array] = {
        "id": ids[rows].astype(np.int64),
        "broken": board.broken[entered].cpu().numpy(),
        "nonfinite": board.nonfinite[entered].cpu().numpy(),
        "forward_passes": board.forward[entered].cpu().numpy(),
        "backward_passes": board.backward[entered].cpu().numpy(),
        "distance_linf": _distance(board.point, images, entered, "linf"),
        "distance_l2": _distance(board.point, images, entered, "l2"),
        "attack_parameter": pa.array(parameter, mask=np.isnan(parameter)),
        **Predictions.from_logits(board.logits[entered].cpu().numpy(), labels[rows]).columns("attacked"),
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


def _distance(points: Tensor, images: Tensor, rows: Sequence[int], norm: str) -> np.ndarray:
    """Return distances [rows] in float64, image by image: two chunks of large images in float64 fill memory."""
    return np.array([float(geometry.length((points[[i]].double() - images[[i]].double()), norm)) for i in rows])
