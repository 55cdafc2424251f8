"""Complete runs, as their folders would be: only the numbers are made up."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from robusteval.evidence import shards
from robusteval.evidence.folder import RunFolder
from robusteval.leaderboard.rows import Row, of_run
from robusteval.metrics.accuracy import rate

Maker = Callable[..., Path]
AUTOATTACK = {"name": "autoattack", "revision": 1, "version": "standard", "steps": 100, "queries": 5000}
LINF = {"norm": "linf", "eps": 8 / 255, "goal": "top1", "region": None}


@pytest.fixture
def make_run(tmp_path: Path) -> Maker:
    """Return a maker of run folders in tmp_path/runs: ``robust`` of ``n`` images stand, the first or as flagged."""

    def make(
        name: str,
        robust: int | Sequence[bool],
        *,
        n: int = 10_000,
        clean: float = 0.95,
        dataset: str = "cifar10",
        ids: Sequence[int] | None = None,
        zoo: str | None = None,
        folder: str | None = None,
        attack: dict[str, Any] | None = None,
        threat: dict[str, Any] | None = None,
        failed: Sequence[str] = (),
        plan: dict[str, Any] | None = None,
        facts: dict[str, Any] | None = None,
    ) -> Path:
        flags = np.arange(n) < robust if isinstance(robust, int) else np.asarray(robust, dtype=bool)
        n = len(flags)
        path = tmp_path / "runs" / (folder or name.replace("/", "_").replace("<", "_"))
        path.mkdir(parents=True, exist_ok=True)
        model = {
            "name": name,
            "source": "python" if zoo is None else f"robustbench {zoo}",
            "digest": "aa",
            "classes": 10,
        }
        images = {"name": dataset, "n": n, "digest": f"{dataset}{n}"}
        chosen = {"attack": {**AUTOATTACK, **(attack or {})}, "threat": {**LINF, **(threat or {})}}
        run = {
            "schema": 1,
            "fingerprint": "f00d",
            "digests": {"preprocessing": "Preprocessing(resize=256, crop=(224, 224), interpolation='bilinear')"},
            "plan": {"n": n, "chunk": 256, "chunks": 1, "stages": ["clean"], "mode": "exact", **(plan or {})},
            "draws": 1,
            "model": model,
            "dataset": images,
            **chosen,
            **(facts or {}),
        }
        results = {
            "schema": 1,
            "fingerprint": "f00d",
            "model": model,
            "dataset": images,
            **chosen,
            "clean": {"accuracy": rate(np.arange(n) < round(clean * n))},
            "robust": {"accuracy": rate(flags)},
            "checks": [{"id": check, "verdict": "fail", "summary": "why"} for check in failed],
            "provenance": {"robusteval": "0.1.0"},
        }
        table = pa.table({"id": np.arange(n) if ids is None else np.asarray(ids), "robust": flags})
        (path / "samples.parquet").write_bytes(shards.encode(table))
        (path / "run.json").write_text(json.dumps(run))
        (path / "results.json").write_text(json.dumps(results))
        return path

    return make


@pytest.fixture
def row(make_run: Maker) -> Callable[..., Row]:
    """Return a maker of the rows of such runs."""

    def make(*arguments: Any, **options: Any) -> Row:
        return of_run(RunFolder(make_run(*arguments, **options)))

    return make
