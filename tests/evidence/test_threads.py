"""How many threads compute changes no byte of the samples, long dot products included."""

import os
import subprocess
import sys
from pathlib import Path


def test_samples_have_the_same_bytes_with_one_thread_and_with_two(tmp_path: Path) -> None:
    found = []
    for threads in (1, 2):
        # The first linear layer of mnist_cnn adds up 1568 products, which MKL would split among threads.
        command = [
            "model=mnist_cnn",
            "dataset.n=64",
            "attack=fgsm",
            "logger=none",
            "checks=off",
            f"runtime.threads={threads}",
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "2"}
        environment.pop("MKL_CBWR", None)
        runs = tmp_path / str(threads)
        subprocess.run([sys.executable, "-m", "robusteval", *command, f"runs.dir={runs}"], env=environment, check=True)
        (file,) = runs.glob("*/samples.parquet")
        found.append(file.read_bytes())
    assert found[0] == found[1]


def test_a_folder_of_runs_that_is_a_file_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    from robusteval.cli import run

    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        assert run(["model=mnist_cnn", "logger=none", f"runs.dir={tmp_path / place}"]) == 2
