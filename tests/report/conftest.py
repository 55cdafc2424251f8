"""A finished evaluation made of random logits: the numbers are real, only the network is not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from robusteval.metrics.predictions import Predictions
from robusteval.metrics.summary import summarise

N, CLASSES = 240, 10


def _arrow(values: np.ndarray) -> pa.Array:
    return (
        pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        if values.ndim == 2
        else pa.array(values)
    )


@pytest.fixture
def samples() -> pa.Table:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, CLASSES, N)
    clean = rng.normal(size=(N, CLASSES))
    clean[np.arange(N), labels] += 4
    attacked = clean + rng.normal(size=clean.shape)
    attacked[np.arange(N), labels] -= 2
    before, after = Predictions.from_logits(2 * clean, labels), Predictions.from_logits(2 * attacked, labels)
    robust = before.correct & after.correct
    columns = {
        "id": np.arange(N) * 5,
        "label": labels.astype(np.int32),
        **before.columns("clean"),
        **after.columns("attacked"),
    }
    table = {name: _arrow(values) for name, values in columns.items()}
    stages = ["pgd" if broken else None for broken in before.correct & ~robust]
    return pa.table(
        {
            **table,
            "clean_correct": before.correct,
            "robust": robust,
            "broken_by": pa.array(stages, pa.string()),
            "broken_at_eps": pa.array([0.3 if stage else None for stage in stages], pa.float64()),
            "distance_linf": rng.random(N) * 0.3,
            "distance_l2": rng.random(N),
            "forward_passes": rng.integers(1, 41, N),
            "backward_passes": rng.integers(0, 41, N),
            "attack_parameter": pa.array([None] * N, pa.float64()),
            "nonfinite": np.zeros(N, dtype=bool),
        }
    )


@pytest.fixture
def make_results(samples: pa.Table) -> Callable[..., dict[str, Any]]:
    """Return a maker of results.json for those samples; keywords replace whole sections."""

    def make(**sections: Any) -> dict[str, Any]:
        return {
            "schema": 1,
            "status": "complete",
            "fingerprint": "f00d",
            "model": {"name": "mnist_cnn_at", "source": "bundled", "digest": "aa"},
            "dataset": {"name": "mnist_5k", "n": N, "digest": "bb"},
            "attack": {"name": "pgd", "steps": 40},
            "threat": {"norm": "linf", "eps": 8 / 255, "goal": "top1", "region": None},
            **summarise(samples, classes=CLASSES, stages=["pgd"], point="first_success"),
            "cost": {"forward_passes": 4521, "backward_passes": 4011, "seconds": 31.2, "passes_per_second": 273.4},
            "checks": [{"id": "range", "verdict": "pass", "summary": "images lie in [0, 1]"}],
            "provenance": {"robusteval": "0.1.0"},
            "sinks": [],
            **sections,
        }

    return make
