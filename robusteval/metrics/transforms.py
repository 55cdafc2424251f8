"""What the transforms of a model change: clean accuracy on the same images, and calibration by temperature."""

from typing import Any

import numpy as np
import pyarrow as pa

from robusteval.metrics.accuracy import rate
from robusteval.metrics.calibration import calibration
from robusteval.metrics.paired import counts, difference, mcnemar, score_interval
from robusteval.metrics.predictions import Predictions

UNTRANSFORMED = "untransformed_prediction"
"""The column of what the model predicted on the clean image before its transforms; -1 for logits not finite."""


def transforms(samples: pa.Table, classes: int) -> dict[str, Any] | None:
    """Return the section ``transforms`` of the results; None of a model without any.

    ``untransformed`` {accuracy}: clean top-1 accuracy of the model before, on the same images. ``cost``: that less the
    accuracy with the transforms, {value, low, high} with a paired 95 % interval, and McNemar's ``p``. With a
    temperature ``untempered``: the calibration before it, {clean, attacked}, at the same points.
    """
    if UNTRANSFORMED not in samples.column_names:
        return None
    before = samples[UNTRANSFORMED].to_numpy() == samples["label"].to_numpy()
    cells = counts(before, Predictions.from_samples(samples, "clean", classes).correct)
    low, high = score_interval(cells)
    section = {
        "untransformed": {"accuracy": rate(before)},
        "cost": {"value": float(np.asarray(difference(cells))), "low": low, "high": high, "p": mcnemar(cells)},
    }
    if "clean_untempered_logsumexp" in samples.column_names:
        section["untempered"] = {
            "clean": calibration(Predictions.from_samples(samples, "clean_untempered", classes)),
            "attacked": calibration(Predictions.from_samples(samples, "attacked_untempered", classes)),
        }
    return section
