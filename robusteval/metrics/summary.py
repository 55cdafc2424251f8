"""The numbers of one evaluation: from the table of samples to the sections of results.json."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from robusteval.errors import RobustevalError
from robusteval.metrics.accuracy import disparity, per_class, rate, wilson
from robusteval.metrics.calibration import calibration
from robusteval.metrics.confidence import confidence
from robusteval.metrics.curve import curve
from robusteval.metrics.predictions import Predictions


def summarise(
    samples: pa.Table,
    *,
    classes: int,
    stages: Sequence[str],
    point: str,
    eps: float | Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
) -> dict:
    """Return {clean, robust, attacked} of a table of samples with a classifier of so many classes.

    ``stages`` are the attack's stages in order; ``point`` says which point of the attack was kept (first_success,
    max_loss or nearest); ``eps`` is the radius or all radii, which robust accuracy gets a curve over. Accuracies of
    predictions are top-1, with ``top5`` beside it above five classes (but not of a survey's answers, which keep one
    class). Robust accuracy and attack success follow the threat's goal, as the columns
    clean_correct and robust do. Everything is plain numbers, strings and None, fit for strict JSON. Raises
    RobustevalError where a sample names an unknown stage.
    """
    clean = Predictions.from_samples(samples, "clean", classes)
    attacked = Predictions.from_samples(samples, "attacked", classes)
    by_class = per_class(clean.labels, clean.correct, class_names)
    return {
        "clean": {**_decisions(clean), "per_class": by_class, "disparity": disparity(by_class)},
        "robust": {
            **_robust(samples, stages, class_names),
            **({} if (points := curve(samples, eps, point)) is None else {"curve": points}),
        },
        "attacked": {"point": point, **_decisions(attacked)},
    }


def _decisions(predictions: Predictions) -> dict:
    top5 = predictions.correct_top5 if predictions.classes > 5 else None
    return {
        "accuracy": rate(predictions.correct),
        **({} if top5 is None else {"top5": rate(top5)}),
        "calibration": calibration(predictions),
        "confidence": confidence(predictions),
    }


def _robust(samples: pa.Table, stages: Sequence[str], class_names: Sequence[str] | None) -> dict:
    labels = samples.column("label").to_numpy()
    robust = samples.column("robust").to_numpy()
    standing = samples.column("clean_correct").to_numpy()
    broken, entered = int(np.count_nonzero(standing & ~robust)), int(np.count_nonzero(standing))
    low, high = wilson(broken, entered)
    by_class = per_class(labels, robust, class_names)
    return {
        "accuracy": rate(robust),
        "attack_success_rate": broken / entered if entered else None,
        "attack_success": {"low": low, "high": high, "broken": broken, "n": entered},
        "per_class": by_class,
        "disparity": disparity(by_class),
        "by_stage": _by_stage(samples, stages, standing),
        "nonfinite": int(np.count_nonzero(samples.column("nonfinite").to_numpy())),
    }


def _by_stage(samples: pa.Table, stages: Sequence[str], standing: np.ndarray) -> list[dict]:
    """Count, of the originally correct samples, how many each stage found standing and how many of those it broke."""
    breaker = np.array(samples.column("broken_by").to_pylist(), dtype=object)[standing]
    unknown = sorted(set(breaker) - {None, *stages})
    if unknown:
        raise RobustevalError(
            f"a sample says it was broken by '{unknown[0]}', but the run's stages are {', '.join(stages) or 'none'}; "
            "the samples are not of this run"
        )
    rows, left = [], len(breaker)
    for stage in stages:
        broken = int(np.count_nonzero(breaker == stage))
        rows.append({"stage": stage, "entered": left, "broken": broken})
        left -= broken
    return rows
