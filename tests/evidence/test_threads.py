"""How many threads compute changes no byte of the samples, long dot products included."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_samples_have_the_same_bytes_with_one_thread_and_with_two(tmp_path: Path) -> None:
    # The first linear layer of mnist_cnn adds up 1568 products, which MKL would split among threads.
    command = ["model=mnist_cnn", "dataset.n=64", "attack=fgsm", "logger=none", "checks=off"]
    places = [[f"runtime.threads={n}", f"runs.dir={tmp_path}/{n}"] for n in (1, 2)]
    code = f"from robusteval.cli import run\nassert [run({command} + place) for place in {places}] == [0, 0]"
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    environment.pop("MKL_CBWR", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    one, two = ([*(tmp_path / name).glob("*/samples.parquet")] for name in ("1", "2"))
    assert one[0].read_bytes() == two[0].read_bytes()


def test_a_folder_of_runs_that_is_a_file_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    from robusteval.cli import run

    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        assert run(["model=mnist_cnn", "logger=none", f"runs.dir={tmp_path / place}"]) == 2
