"""A finished evaluation made of random logits: the numbers are real, only the network is not."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from robusteval.evidence import atomic, shards
from robusteval.evidence.folder import RunFolder, write_json
from robusteval.metrics.predictions import Predictions
from robusteval.metrics.summary import summarise

N, CLASSES = 240, 10


def _arrow(values: np.ndarray) -> pa.Array:
    return (
        pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        if values.ndim == 2
        else pa.array(values)
    )


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def numbers(samples: pa.Table) -> dict[str, Any]:
    """Return what those samples say; a copy of it for everybody who changes it."""
    return summarise(samples, classes=CLASSES, stages=["pgd"], point="first_success")


@pytest.fixture
def make_results(numbers: dict[str, Any]) -> Callable[..., dict[str, Any]]:
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
            **copy.deepcopy(numbers),
            "cost": {"forward_passes": 4521, "backward_passes": 4011, "seconds": 31.2, "passes_per_second": 273.4},
            "checks": [{"id": "range", "verdict": "pass", "summary": "images lie in [0, 1]"}],
            "provenance": {"robusteval": "0.1.0"},
            "sinks": [],
            **sections,
        }

    return make


@pytest.fixture
def make_run(
    tmp_path: Path, samples: pa.Table, make_results: Callable[..., dict[str, Any]]
) -> Callable[..., RunFolder]:
    """Return a maker of complete run folders in tmp_path/runs: whose robust images are given, with other sections."""

    def make(name: str, standing: np.ndarray | None = None, *, table: pa.Table = samples, **sections: Any) -> RunFolder:
        run = RunFolder(tmp_path / "runs" / name)
        if standing is not None:
            kept = standing & table["clean_correct"].to_numpy()
            broken = table["clean_correct"].to_numpy() & ~kept
            columns = {
                "robust": kept,
                "broken_by": pa.array(["pgd" if each else None for each in broken], pa.string()),
                "broken_at_eps": pa.array([8 / 255 if each else None for each in broken], pa.float64()),
            }
            for column, values in columns.items():
                table = table.set_column(table.column_names.index(column), column, pa.array(values))
        data = shards.encode(table)
        if table is not samples:
            sections = {**summarise(table, classes=CLASSES, stages=["pgd"], point="first_success"), **sections}
        results = make_results(**sections, evidence={"samples_sha256": atomic.sha256(data)})
        facts = {
            "schema": 1,
            "key": name,
            "fingerprint": name,
            "digests": {"model": "aa", "dataset": "bb", "preprocessing": "none"},
            "plan": {"n": N, "chunk": 256, "chunks": 1, "stages": ["clean", "pgd"], "mode": "exact",
                     "point": results["attacked"]["point"]},
            "model": {**results["model"], "classes": CLASSES},
            "attack": results["attack"],
            "threat": results["threat"],
            "seed": 0,
            "draws": 1,
        }  # fmt: skip
        atomic.write(run.samples_file, data)
        write_json(run.run_file, facts)
        write_json(run.results_file, results)
        return run

    return make
