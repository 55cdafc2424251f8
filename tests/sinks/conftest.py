"""A finished run folder, fabricated, and an environment that knows no account and reaches no server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

N = 40


@pytest.fixture(autouse=True)
def no_account(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    home = str(tmp_path_factory.mktemp("home"))
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("WANDB_CONFIG_DIR", home)
    monkeypatch.setenv("NETRC", f"{home}/netrc")


def _rate(k: int) -> dict[str, Any]:
    return {"value": k / N, "low": k / N - 0.01, "high": k / N + 0.01, "correct": k, "n": N}


def _bins(offset: float) -> list[dict[str, Any]]:
    return [
        {"low": b / 15, "high": (b + 1) / 15, "n": b, "confidence": (b + 0.3) / 15, "accuracy": offset} for b in (3, 9)
    ]


def _samples() -> pa.Table:
    rng = np.random.default_rng(0)
    confidence = rng.random(N)
    confidence[5] = np.nan
    top = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(3 * N, dtype=np.float32)), 3)
    return pa.table(
        {
            "id": np.arange(N) * 7,
            "label": np.arange(N, dtype=np.int32) % 3,
            "clean_prediction": np.arange(N, dtype=np.int32) % 3,
            "clean_confidence": confidence,
            "attacked_prediction": np.arange(N, dtype=np.int32) % 2,
            "attacked_confidence": rng.random(N),
            "robust": np.arange(N) % 2 == 0,
            "broken_by": pa.array([None if i % 2 == 0 else "pgd" for i in range(N)], pa.string()),
            "clean_top_logits": top,
        }
    )


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[[str], Path]:
    """Return a maker of finished runs, told apart by name, fingerprint and clean accuracy."""

    def make(name: str = "mnist_cnn_at-mnist_5k-pgd-0123456789") -> Path:
        folder = tmp_path / name
        part = {
            "accuracy": _rate(37),
            "calibration": {"ece": 0.125, "overconfidence": None, "reliability": _bins(0.5)},
            "confidence": {"mean": 0.75, "auroc": 1 / 3},
            "per_class": [{"class": c, "name": f"class {c}", **_rate(12)} for c in range(3)],
        }
        results = {
            "schema": 1,
            "status": "complete",
            "fingerprint": f"fingerprint of {name}",
            "model": {"name": "mnist_cnn_at", "source": "bundled", "digest": "aa"},
            "dataset": {"name": "mnist_5k", "n": N, "digest": "bb"},
            "attack": {"name": "pgd", "steps": 40},
            "threat": {"norm": "linf", "eps": 0.1 + 0.2, "goal": "top1", "region": None},
            "clean": part,
            "robust": {
                "accuracy": _rate(len(name)),
                "by_stage": [{"stage": "pgd", "entered": 37, "broken": 9}],
                "curve": [{"eps": 0.1, **_rate(37)}, {"eps": 0.1 + 0.2, **_rate(len(name))}],
            },
            "attacked": {"point": "first_success", **part},
            "cost": {"forward_passes": 12345678901, "backward_passes": 0, "seconds": 1.5, "passes_per_second": 1e-17},
            "checks": [{"id": "range", "verdict": "pass", "summary": "images lie in [0, 1]"}],
            "provenance": {"robusteval": "0.1.0", "command": "robusteval attack=pgd"},
            "sinks": [],
        }
        (folder / "figures" / "examples").mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(results))
        (folder / "config.yaml").write_text("model:\n  name: mnist_cnn_at\nlogger:\n  name: none\nseed: 3\n")
        pq.write_table(_samples(), folder / "samples.parquet")
        Image.new("RGB", (40, 30), "red").save(folder / "figures" / "reliability.png")
        for number in (0, 7, 14):
            Image.new("L", (84, 28), number).save(folder / "figures" / "examples" / f"{number:08}.png")
        return folder

    return make
