"""The attacked image of a sample lies inside the threat model, whatever the mode."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from robusteval.cli import run


def test_one_parameter_for_all_is_not_counted_where_its_image_is_outside(tmp_path: Path) -> None:
    rng, radius = np.random.default_rng(0), 0.3
    grey = rng.integers(0, 256, (24, 1, 28, 28)).astype(np.uint8)
    # Between 90 and 165, so that their negatives are at most 75/255 away; the others' are further off.
    grey[:12] = 90 + grey[:12] % 76
    np.savez(tmp_path / "images.npz", images=grey, labels=np.arange(24) % 10)
    dataset = ["dataset=arrays", f"dataset.path={tmp_path / 'images.npz'}"]
    attack = ["attack=solarize", "attack.mode=universal", "threat.norm=linf", f"threat.eps={radius}"]
    assert run(["model=mnist_cnn", *dataset, *attack, "logger=none", f"runs.dir={tmp_path / 'runs'}"]) == 0
    (file,) = (tmp_path / "runs").glob("*/samples.parquet")
    samples = pq.read_table(file).to_pydict()
    assert max(samples["distance_linf"]) <= radius
    outside = [parameter is None for parameter in samples["attack_parameter"]]
    assert any(outside)
    assert not all(outside)
    for name in ("prediction", "confidence", "entropy"):
        kept = [clean for clean, is_out in zip(samples[f"clean_{name}"], outside, strict=True) if is_out]
        assert kept == [now for now, is_out in zip(samples[f"attacked_{name}"], outside, strict=True) if is_out]
    results = json.loads((file.parent / "results.json").read_text())
    assert results["attacked"]["accuracy"]["value"] >= results["robust"]["accuracy"]["value"]
    assert run(["verify", str(file.parent)]) == 0
